"""Product with four-bit codes in Triton, a row's bits whatever its company.

    y = x @ (codes * scales + offsets).T + bias           scales and offsets: one for each group

x: [T, K] fp16 or bf16, rows may be apart; y: [T, N] fp16, bf16 or fp32; bias: [N] fp32; codes are
the words of `codes.py` [blocks, N', W], grids [groups, 1 or 2, N'] as `packing.py` lays them, N' is
N up to whole tiles. Weights are made in fp32 and rounded once, to x's type; sums are fp32.

A program computes a tile of y of one slice of K or of all of them (`linear_tiles/tiling.py`), as
weights times x transposed: so weights are the operand that a matrix instruction takes from
registers, and a thread that has read words multiplies what they hold. Up to about 50 rows the
kernel is bound by memory and moves N * K / 2 bytes of codes, 4 * N * groups of grids (8 in fp32),
and x once for each tile of columns (from the cache); above, by arithmetic.
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

    from tgi_cli.kernels.linear_tiles.tiling import Tile, Tiling

    from .packing import PackedInt4

_HALF_ROWS = 64


@triton.constexpr_function
def starts_group(part, num_words, group_size):
    """Whether part `part` of a block may be of another group than the one before."""
    begin, depth = part * num_words, 8 * num_words
    if group_size % depth == 0:
        return begin == 0
    return depth % group_size != 0 or begin % group_size == 0


@triton.jit
def load_grid(grids_ptr, group, columns, num_columns, IS_WIDE: tl.constexpr):
    """Return the scale and the offset [N] of a group in fp32; num_columns: int64."""
    if IS_WIDE:
        places = grids_ptr + group * (2 * num_columns) + columns
        scale = tl.load(places).to(tl.float32, bitcast=True)
        return scale, tl.load(places + num_columns).to(tl.float32, bitcast=True)
    pair = tl.load(grids_ptr + group * num_columns + columns)
    scale = pair.to(tl.int16).to(tl.float16, bitcast=True).to(tl.float32)
    return scale, (pair >> 16).to(tl.int16).to(tl.float16, bitcast=True).to(tl.float32)


@triton.jit
def weights_of(words, PART: tl.constexpr, masks, scale, offset):
    """Return the weights of a part [N, W] in fp32; scale and offset: [N], masks: twice [N]."""
    if PART // 2 == 1:
        words = words >> 8
    elif PART // 2 == 2:
        words = words << 8
    elif PART // 2 == 3:
        words = (words << 16) | ((words >> 16) & 0xFFFF)
    if PART % 2 == 0:
        bits = (words & masks[0][:, None]) | 0x45000000  # 2048 + code
        offset -= 2048.0 * scale
    else:
        bits = (words & masks[1][:, None]) | 0x43000000  # 128 + code
        offset -= 128.0 * scale
    return bits.to(tl.float32, bitcast=True) * scale[:, None] + offset[:, None]


@triton.jit
def _sum_of_slice(
    x_places,
    is_row,
    words_ptr,
    grids_ptr,
    columns,
    masks,
    first_block,
    last_block,
    num_in,
    num_columns,
    ROWS: tl.constexpr,
    HALVES: tl.constexpr,
    COLUMNS: tl.constexpr,
    WORDS: tl.constexpr,
    GROUP: tl.constexpr,
    IS_WIDE: tl.constexpr,
    IS_EVEN: tl.constexpr,
):
    total = tl.zeros((COLUMNS, ROWS // HALVES), tl.float32)
    second = total
    word = tl.arange(0, WORDS)
    places = words_ptr + columns[:, None] * WORDS + word[None, :]
    for block in range(first_block, last_block):
        words = tl.load(places + block * (num_columns * WORDS))
        for part in tl.static_range(8):
            begin = block * (8 * WORDS) + part * WORDS
            if starts_group(part, WORDS, GROUP):
                scale, offset = load_grid(grids_ptr, begin // GROUP, columns, num_columns, IS_WIDE)
            weights = weights_of(words, part, masks, scale, offset)
            weights = weights.to(x_places[0].dtype.element_ty)
            is_in = (begin + word < num_in)[:, None] if not IS_EVEN else True
            x = tl.load(x_places[0] + begin, mask=is_row[0][None, :] & is_in, other=0.0)
            total = tl.dot(weights, x, total)
            if HALVES == 2:
                x = tl.load(x_places[1] + begin, mask=is_row[1][None, :] & is_in, other=0.0)
                second = tl.dot(weights, x, second)
    return total, second


@triton.jit
def sums_of_tile(
    x_places,
    is_row,
    words_ptr,
    grids_ptr,
    masks_ptr,
    columns,
    num_in,
    num_columns,
    blocks_per_slice,
    NUM_SLICES: tl.constexpr,
    IS_SPLIT: tl.constexpr,
    ROWS: tl.constexpr,
    HALVES: tl.constexpr,
    COLUMNS: tl.constexpr,
    WORDS: tl.constexpr,
    GROUP: tl.constexpr,
    IS_WIDE: tl.constexpr,
    IS_EVEN: tl.constexpr,
):
    """Return two halves [COLUMNS, ROWS / HALVES] of a tile, or of the slice that this program has.

    x_places: of each half [W, ROWS / HALVES], of the first part of a row; is_row: of each half;
    columns: [COLUMNS]. Halves are products of their own, which share the weights: so a tile of
    more rows is the same matrix instruction. Where there is one, the second means nothing.
    """
    # Loaded, for each column, so that they are in registers: with them one instruction does "and"
    # and "or". As constants they would be part of the instruction, which has room for one.
    masks = (
        tl.load(masks_ptr + tl.zeros((COLUMNS,), tl.int32)),
        tl.load(masks_ptr + tl.full((COLUMNS,), 1, tl.int32)),
    )
    num_blocks = tl.cdiv(num_in, 8 * WORDS)
    num_columns = num_columns.to(tl.int64)  # N * K / 8 can pass 2**31
    if IS_SPLIT:
        first = tl.program_id(1) * blocks_per_slice
        last = tl.minimum(first + blocks_per_slice, num_blocks)
        return _sum_of_slice(
            *(x_places, is_row, words_ptr, grids_ptr, columns, masks, first, last, num_in),
            *(num_columns, ROWS, HALVES, COLUMNS, WORDS, GROUP, IS_WIDE, IS_EVEN),
        )
    if NUM_SLICES == 1:
        return _sum_of_slice(
            *(x_places, is_row, words_ptr, grids_ptr, columns, masks, 0, num_blocks, num_in),
            *(num_columns, ROWS, HALVES, COLUMNS, WORDS, GROUP, IS_WIDE, IS_EVEN),
        )
    total = tl.zeros((COLUMNS, ROWS // HALVES), tl.float32)
    second = total
    for index in range(NUM_SLICES):
        first = index * blocks_per_slice
        last = tl.minimum(first + blocks_per_slice, num_blocks)
        sums = _sum_of_slice(
            *(x_places, is_row, words_ptr, grids_ptr, columns, masks, first, last, num_in),
            *(num_columns, ROWS, HALVES, COLUMNS, WORDS, GROUP, IS_WIDE, IS_EVEN),
        )
        total += sums[0]
        if HALVES == 2:
            second += sums[1]
    return total, second


@triton.jit(do_not_specialize=["num_rows"])  # one program for every batch
def _linear_int4_kernel(
    x_ptr,
    words_ptr,
    grids_ptr,
    masks_ptr,
    bias_ptr,
    y_ptr,
    x_stride,
    y_stride,
    num_rows,
    num_out,
    num_in,
    num_columns,
    blocks_per_slice,
    NUM_SLICES: tl.constexpr,
    IS_SPLIT: tl.constexpr,
    HAS_BIAS: tl.constexpr,
    IS_EVEN: tl.constexpr,
    IS_WIDE: tl.constexpr,
    GROUP: tl.constexpr,
    ROWS: tl.constexpr,
    HALVES: tl.constexpr,
    COLUMNS: tl.constexpr,
    WORDS: tl.constexpr,
):
    tile_row, tile_column = place_of_tile(num_rows, num_out, ROWS, COLUMNS)
    HALF: tl.constexpr = ROWS // HALVES
    rows = tile_row * ROWS + tl.arange(0, HALF)
    columns = tile_column * COLUMNS + tl.arange(0, COLUMNS)
    is_row = (rows < num_rows, rows + HALF < num_rows)
    x_places = x_ptr + rows[None, :].to(tl.int64) * x_stride + tl.arange(0, WORDS)[:, None]
    halves = sums_of_tile(
        *((x_places, x_places + HALF * x_stride), is_row, words_ptr, grids_ptr, masks_ptr),
        *(columns, num_in, num_columns, blocks_per_slice),
        *(NUM_SLICES, IS_SPLIT, ROWS, HALVES, COLUMNS, WORDS, GROUP, IS_WIDE, IS_EVEN),
    )
    if IS_SPLIT:
        y_ptr += tl.program_id(1).to(tl.int64) * num_rows * num_out
    for half in tl.static_range(HALVES):
        store_tile(
            *(tl.trans(halves[half]), None, None, bias_ptr, y_ptr, y_stride, rows + half * HALF),
            *(columns, num_rows, num_out, IS_SPLIT, False, False, HAS_BIAS),
        )


def halves_of(tile: Tile) -> int:
    """Return how many products, each of at most 64 rows, a tile is."""
    return 2 if tile.rows > _HALF_ROWS else 1


def linear_int4(x: Tensor, packed: PackedInt4, *, out: Tensor, tiling: Tiling) -> None:
    """Write `x` [T, K], in the order of the codes, times `packed` to `out` [T, N]."""
    num_rows, num_in = x.shape
    _, num_columns, num_words = packed.words.shape
    assert x.stride(1) == out.stride(1) == 1, (x.stride(), out.stride())
    assert tiling.depth == 8 * num_words, (tiling.depth, num_words)
    work = cut(tiling, num_rows, packed.num_out, num_in)
    assert num_columns % work.columns == 0, (num_columns, work.columns)
    y = partial_sums(work, out)
    _linear_int4_kernel[work.grid](
        x,
        packed.words,
        packed.grids,
        packed.masks,
        packed.bias,
        y,
        x.stride(0),
        y.stride(-2),
        num_rows,
        packed.num_out,
        num_in,
        num_columns,
        work.blocks_per_slice,
        NUM_SLICES=work.num_slices,
        IS_SPLIT=work.is_split,
        HAS_BIAS=packed.bias is not None,
        IS_EVEN=num_in % tiling.depth == 0,
        IS_WIDE=packed.grids.shape[1] == 2,
        GROUP=packed.group_size,
        ROWS=work.tile.rows,
        HALVES=halves_of(work.tile),
        COLUMNS=work.columns,
        WORDS=num_words,
        num_warps=work.tile.num_warps,
        num_stages=work.tile.num_stages,
        **tiling.options,
    )
    if work.is_split:
        add_slices(y, out, bias=packed.bias)
