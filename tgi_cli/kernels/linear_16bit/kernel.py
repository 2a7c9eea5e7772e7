"""Product with a 16-bit weight in Triton, a row's bits whatever its company.

    y = x @ weight.T + bias

x: [T, K], rows may be apart; weight: [N, >= K], K contiguous, both fp16 or both bf16; bias: [N]
fp32; y: [T, N] fp16, bf16 or fp32. Sums are fp32. A program computes a tile of y, of one slice of K
or of all of them (`linear_tiles/tiling.py`). Up to about 200 rows it is bound by memory and moves
2 * N * K + 2 * T * K bytes and y, and 8 * T * N for each slice of K beyond the first; above, by
arithmetic: 2 * T * N * K operations on tensor cores.

Loads are of 16 bytes where K and x's row stride are multiples of 16; else x is read piecemeal.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import triton
import triton.language as tl

from tgi_cli.kernels.linear_tiles.kernel import (
    add_slices,
    partial_sums,
    place_of_tile,
    store_tile,
)
from tgi_cli.kernels.linear_tiles.tiling import cut

if TYPE_CHECKING:
    from torch import Tensor

    from tgi_cli.kernels.linear_tiles.tiling import Tiling


@triton.jit
def _sum_of_slice(
    x_places,
    weight_places,
    is_row,
    first_block,
    last_block,
    num_in,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
    DEPTH: tl.constexpr,
    IS_EVEN: tl.constexpr,
):
    total = tl.zeros((ROWS, COLUMNS), tl.float32)
    for block in range(first_block, last_block):
        begin = block * DEPTH
        mask = is_row[:, None]
        if not IS_EVEN:
            mask = mask & (begin + tl.arange(0, DEPTH) < num_in)[None, :]
        x = tl.load(x_places + begin, mask=mask, other=0.0)
        weight = tl.load(weight_places + begin)
        total = tl.dot(x, weight, total)
    return total


@triton.jit
def sums_of_tile(
    x_places,
    weight_places,
    is_row,
    num_in,
    blocks_per_slice,
    NUM_SLICES: tl.constexpr,
    IS_SPLIT: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
    DEPTH: tl.constexpr,
    IS_EVEN: tl.constexpr,
):
    """Return a tile [ROWS, COLUMNS] of the product, or of the slice that this program has.

    x_places: [ROWS, DEPTH] and weight_places: [DEPTH, COLUMNS], of the first block; is_row: [ROWS].
    """
    num_blocks = tl.cdiv(num_in, DEPTH)
    if IS_SPLIT:
        first = tl.program_id(1) * blocks_per_slice
        last = tl.minimum(first + blocks_per_slice, num_blocks)
        return _sum_of_slice(
            *(x_places, weight_places, is_row, first, last, num_in, ROWS, COLUMNS, DEPTH, IS_EVEN)
        )
    if NUM_SLICES == 1:
        return _sum_of_slice(
            *(x_places, weight_places, is_row, 0, num_blocks, num_in, ROWS, COLUMNS, DEPTH, IS_EVEN)
        )
    total = tl.zeros((ROWS, COLUMNS), tl.float32)
    for index in range(NUM_SLICES):
        first = index * blocks_per_slice
        last = tl.minimum(first + blocks_per_slice, num_blocks)
        total += _sum_of_slice(
            *(x_places, weight_places, is_row, first, last, num_in, ROWS, COLUMNS, DEPTH, IS_EVEN)
        )
    return total


@triton.jit(do_not_specialize=["num_rows"])  # one program for every batch
def _linear_16bit_kernel(
    x_ptr,
    weight_ptr,
    bias_ptr,
    y_ptr,
    x_stride,
    weight_stride,
    y_stride,
    num_rows,
    num_out,
    num_in,
    blocks_per_slice,
    NUM_SLICES: tl.constexpr,
    IS_SPLIT: tl.constexpr,
    HAS_BIAS: tl.constexpr,
    IS_EVEN: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
    DEPTH: tl.constexpr,
):
    tile_row, tile_column = place_of_tile(num_rows, num_out, ROWS, COLUMNS)
    rows = tile_row * ROWS + tl.arange(0, ROWS)
    columns = tile_column * COLUMNS + tl.arange(0, COLUMNS)
    depth = tl.arange(0, DEPTH)
    is_row = rows < num_rows
    x_places = x_ptr + rows[:, None].to(tl.int64) * x_stride + depth[None, :]
    # A column that isn't there reads the last one, and isn't written.
    there = tl.minimum(columns, num_out - 1).to(tl.int64)
    weight_places = weight_ptr + there[None, :] * weight_stride + depth[:, None]
    total = sums_of_tile(
        *(x_places, weight_places, is_row, num_in, blocks_per_slice),
        *(NUM_SLICES, IS_SPLIT, ROWS, COLUMNS, DEPTH, IS_EVEN),
    )
    if IS_SPLIT:
        y_ptr += tl.program_id(1).to(tl.int64) * num_rows * num_out
    store_tile(
        total,
        None,
        None,
        bias_ptr,
        y_ptr,
        y_stride,
        rows,
        columns,
        num_rows,
        num_out,
        IS_SPLIT,
        False,
        False,
        HAS_BIAS,
    )


def linear_16bit(
    x: Tensor, weight: Tensor, bias: Tensor | None, *, out: Tensor, tiling: Tiling
) -> None:
    """Write `x` [T, K] times `weight` [N, K padded with zeros to blocks] and `bias` to `out`."""
    num_rows, num_in = x.shape
    num_out = weight.shape[0]
    assert x.dtype == weight.dtype, (x.dtype, weight.dtype)
    assert x.stride(1) == weight.stride(1) == out.stride(1) == 1
    assert weight.shape[1] == -(-num_in // tiling.depth) * tiling.depth, (weight.shape, num_in)
    work = cut(tiling, num_rows, num_out, num_in)
    y = partial_sums(work, out)
    _linear_16bit_kernel[work.grid](
        x,
        weight,
        bias,
        y,
        x.stride(0),
        weight.stride(0),
        y.stride(-2),
        num_rows,
        num_out,
        num_in,
        work.blocks_per_slice,
        NUM_SLICES=work.num_slices,
        IS_SPLIT=work.is_split,
        HAS_BIAS=bias is not None,
        IS_EVEN=num_in % tiling.depth == 0,
        ROWS=work.tile.rows,
        COLUMNS=work.columns,
        DEPTH=tiling.depth,
        num_warps=work.tile.num_warps,
        num_stages=work.tile.num_stages,
        **tiling.options,
    )
    if work.is_split:
        add_slices(y, out, bias=bias)
