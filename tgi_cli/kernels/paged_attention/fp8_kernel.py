"""Numbers of 8 bits, coded and decoded with integers, since few GPUs do both kinds themselves.

e4m3: sign, 4 bits of exponent (bias 7), 3 of fraction; the largest is 448, no infinity, 0x7f is
NaN. e5m2: 5 (bias 15) and 2; the largest is 57344. Micikevicius et al., FP8 Formats for Deep
Learning, arXiv:2209.05433. A cache holds the bits as uint8, with one scale of 1.

FP8 is the number of bits of the fraction: 3 for e4m3, 2 for e5m2.
"""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def widen(codes, FP8: tl.constexpr):
    """Return the fp16 of `codes`, exactly."""
    bits = codes.to(tl.uint16)
    if FP8 == 2:  # the upper half of an fp16
        return (bits << 8).to(tl.float16, bitcast=True)
    sign, rest = (bits & 0x80) << 8, bits & 0x7F
    # As an fp16 the exponent counts from 15 and not from 7: 2**8 too small, subnormals as well.
    value = ((rest << 7) | sign).to(tl.float16, bitcast=True) * 256.0
    return tl.where(rest == 0x7F, float("nan"), value).to(tl.float16)


@triton.jit
def narrow(x, FP8: tl.constexpr):
    """Return the code next to `x` fp32, ties to even; NaN stays NaN, and the rest is finite."""
    LARGEST: tl.constexpr = 448.0 if FP8 == 3 else 57344.0
    LEAST_NORMAL: tl.constexpr = 0.015625 if FP8 == 3 else 0.00006103515625
    # An fp32 of this size has its last bit where a subnormal code has it: adding rounds.
    ROUNDER: tl.constexpr = 16384.0 if FP8 == 3 else 128.0
    EXPONENT_SHIFT: tl.constexpr = 120 if FP8 == 3 else 112  # from fp32's bias
    DROPPED: tl.constexpr = 23 - FP8

    bits = x.to(tl.uint32, bitcast=True)
    sign = (bits >> 24) & 0x80
    is_nan = x != x
    magnitude = tl.where(is_nan, 0.0, tl.minimum(tl.abs(x), LARGEST))
    bits = magnitude.to(tl.uint32, bitcast=True)
    rounded = bits + ((1 << (DROPPED - 1)) - 1) + ((bits >> DROPPED) & 1)
    # Where it wraps below zero, the other branch is taken.
    normal = (rounded >> DROPPED) - (EXPONENT_SHIFT << FP8)
    rounder = tl.full(x.shape, ROUNDER, tl.float32)
    subnormal = (magnitude + ROUNDER).to(tl.uint32, bitcast=True) - rounder.to(
        tl.uint32, bitcast=True
    )
    code = tl.where(magnitude < LEAST_NORMAL, subnormal, normal)
    return (tl.where(is_nan, 0x7F, code) | sign).to(tl.uint8)
