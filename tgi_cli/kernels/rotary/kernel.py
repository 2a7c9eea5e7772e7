"""Rotary position embedding in Triton, in place.

    y[i]         = x[i] * cos[i] - x[i + D/2] * sin[i]                       i < D/2
    y[i + D/2]   = x[i + D/2] * cos[i] + x[i] * sin[i]

x: [T, H, D] fp32, fp16 or bf16, tokens and heads apart as they like; cos, signed_sin: [T, 1, D]
fp32, of which the first half of cos and the second of signed_sin are read. A program turns up to 8
heads of a token, so T * ceil(H / 8) programs. Memory bound: moves 2 * T * H * D * itemsize bytes,
and 4 * D for each token's angles.

Su et al., RoFormer, arXiv:2104.09864.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import triton
import triton.language as tl

if TYPE_CHECKING:
    from torch import Tensor

_HEADS = 8  # of a program


@triton.jit
def _rotate_kernel(
    x_ptr,
    cos_ptr,
    signed_sin_ptr,
    x_token_stride,
    x_head_stride,
    num_heads,
    HALF: tl.constexpr,
    BLOCK: tl.constexpr,
    HEADS: tl.constexpr,
):
    token = tl.program_id(0).to(tl.int64)  # T * H * D can pass 2**31
    heads = tl.program_id(1) * HEADS + tl.arange(0, HEADS)
    cols = tl.arange(0, BLOCK)  # BLOCK is the next power of two from HALF up
    is_inside = cols < HALF
    angles = token * 2 * HALF + cols
    cos = tl.load(cos_ptr + angles, mask=is_inside, other=0.0)[None, :]
    sin = tl.load(signed_sin_ptr + angles + HALF, mask=is_inside, other=0.0)[None, :]

    places = x_ptr + token * x_token_stride + heads[:, None] * x_head_stride + cols[None, :]
    mask = (heads < num_heads)[:, None] & is_inside[None, :]
    below = tl.load(places, mask=mask, other=0.0).to(tl.float32)
    above = tl.load(places + HALF, mask=mask, other=0.0).to(tl.float32)
    dtype = x_ptr.dtype.element_ty
    tl.store(places, (below * cos - above * sin).to(dtype), mask=mask)
    tl.store(places + HALF, (above * cos + below * sin).to(dtype), mask=mask)


def rotate_(x: Tensor, cos: Tensor, signed_sin: Tensor) -> None:
    """Rotate every head of `x` [T, H, D] in place."""
    num_tokens, num_heads, head_dim = x.shape
    assert x.stride(2) == 1, x.stride()
    assert cos.is_contiguous(), cos.stride()
    assert signed_sin.is_contiguous(), signed_sin.stride()
    if not num_tokens:
        return
    half = head_dim // 2
    block = triton.next_power_of_2(half)
    _rotate_kernel[(num_tokens, triton.cdiv(num_heads, _HEADS))](
        x,
        cos,
        signed_sin,
        x.stride(0),
        x.stride(1),
        num_heads,
        HALF=half,
        BLOCK=block,
        HEADS=_HEADS,
        num_warps=1 if block <= 64 else 2,
    )
