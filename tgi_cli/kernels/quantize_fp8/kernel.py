"""Rows in fp8 (e4m3) in Triton, each by its largest number.

    scale[t] = max|x[t]| / 448        q[t] = x[t] * (448 / max|x[t]|)

x: [T, K] fp16, bf16 or fp32, rows may be apart; q: [T, K] e4m3; scales: [T] fp32. One program for
each row, which it reads twice, the second time from the cache. Memory bound: moves
T * K * (itemsize + 1) bytes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import triton
import triton.language as tl

from . import LARGEST, SMALLEST_MAX

if TYPE_CHECKING:
    from torch import Tensor

_BLOCK = 4096


@triton.jit
def _quantize_fp8_kernel(
    x_ptr, codes_ptr, scales_ptr, x_stride, num_in, largest_code, smallest, BLOCK: tl.constexpr
):
    row = tl.program_id(0).to(tl.int64)  # T * K can pass 2**31
    x_ptr += row * x_stride
    codes_ptr += row * num_in
    columns = tl.arange(0, BLOCK)

    maxima = tl.zeros((BLOCK,), tl.float32)
    for begin in range(0, num_in, BLOCK):
        x = tl.load(x_ptr + begin + columns, mask=begin + columns < num_in, other=0.0)
        maxima = tl.maximum(maxima, tl.abs(x.to(tl.float32)))
    largest = tl.maximum(tl.max(maxima), smallest)
    tl.store(scales_ptr + row, tl.div_rn(largest, largest_code))

    inverse = tl.div_rn(largest_code, largest)
    for begin in range(0, num_in, BLOCK):
        x = tl.load(x_ptr + begin + columns, mask=begin + columns < num_in, other=0.0)
        codes = (x.to(tl.float32) * inverse).to(tl.float8e4nv)
        tl.store(codes_ptr + begin + columns, codes, mask=begin + columns < num_in)


def quantize_fp8(x: Tensor, *, codes: Tensor, scales: Tensor) -> None:
    """Write the rows of `x` [T, K] to `codes` [T, K] and `scales` [T]."""
    num_rows, num_in = x.shape
    assert x.stride(1) == 1, x.stride()
    assert codes.is_contiguous()
    block = min(triton.next_power_of_2(num_in), _BLOCK)
    _quantize_fp8_kernel[(num_rows,)](
        x,
        codes,
        scales,
        x.stride(0),
        num_in,
        LARGEST,
        SMALLEST_MAX,
        BLOCK=block,
        num_warps=min(max(block // 512, 1), 8),
    )
