"""Product with a weight of codes in Triton, a row's bits whatever its company.

    y[m, n] = (slice 0 + slice 1 + ...) * row_scales[m] * scales[n] + bias[n]
    slice   = ((0 + x[m, group 0] . w[n, group 0] * group_scales[0, n]) + ...)

x: [T, K] fp16 or bf16, or fp8 for fp8 weights; rows may be apart. The weight: words [N, K / codes
in a word], a row of whole blocks, laid out by `packing.py`. group_scales: [groups, N] fp16 or fp32;
row_scales: [T], scales, bias: [N] fp32; each may be missing. y: [T, N] fp16, bf16 or fp32. Sums are
fp32. `linear_tiles/tiling.py` has the cut into slices and says why a row's bits don't depend on T.

A program computes a tile of y of one slice of K or of all of them, as weights times x transposed:
weights are then the operand that a matrix instruction takes from registers, where they are widened,
and a thread's sums share one or two scales. Up to about 100 rows it is bound by memory and moves
the words, the scales, y, and x once for each tile of columns (from the cache); above, by
arithmetic. Words come in loads of 16 bytes; so does x where K and its row stride are multiples of
16, else it is read piecemeal.
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

    from .packing import PackedCodes


@triton.jit
def _widen(words, table_ptr, part: tl.constexpr, dtype: tl.constexpr, KIND: tl.constexpr):
    """Return the codes of `part` in words of 16 bits as numbers of `dtype`, each of them exact.

    - "int8": both 16-bit types have the whole numbers up to 128;
    - "e4m3": exponent and fraction are those of an fp16 that is 2**8 times too small, or of an fp32
      that is 2**120 times too small, subnormals too;
    - "table4": numbers of the table, which is of x's type and stays in the first cache;
    - "fp8": as they are.
    """
    if KIND == "int8":
        return (words >> (8 * part)).to(tl.int8).to(dtype)
    elif KIND == "e4m3":
        bits = (words >> (8 * part)).to(tl.uint8)
        if dtype == tl.float16:
            bits = bits.to(tl.uint16)
            small = ((bits & 0x80) << 8) | ((bits & 0x7F) << 7)
            return small.to(tl.float16, bitcast=True) * 256.0
        bits = bits.to(tl.uint32)
        small = ((bits & 0x80) << 24) | ((bits & 0x7F) << 20)
        return (small.to(tl.float32, bitcast=True) * 1329227995784915872903807060280344576.0).to(
            dtype
        )
    elif KIND == "table4":
        return tl.load(table_ptr + ((words >> (4 * part)) & 15).to(tl.uint32))
    else:
        return words


@triton.jit
def _sum_of_slice(
    word_places,
    x_places,
    group_scales_ptr,
    table_ptr,
    is_row,
    columns,
    first_block,
    last_block,
    num_in,
    num_out,
    KIND: tl.constexpr,
    PARTS: tl.constexpr,
    GROUP_SIZE: tl.constexpr,
    PARTS_PER_SCALE: tl.constexpr,
    IS_EVEN: tl.constexpr,
    ROWS: tl.constexpr,
    HALVES: tl.constexpr,
    COLUMNS: tl.constexpr,
    DEPTH: tl.constexpr,
):
    """Return the sums of a tile's halves [COLUMNS, ROWS / HALVES] over blocks.

    Parts of a block lie in the same words, and halves share their numbers. Where there is one half,
    the second means nothing.
    """
    WIDTH: tl.constexpr = DEPTH // PARTS
    dtype: tl.constexpr = x_places[0].dtype.element_ty
    total = tl.zeros((COLUMNS, ROWS // HALVES), tl.float32)
    second = total
    if KIND == "table4":
        following = tl.load(word_places + first_block * WIDTH)
    for block in range(first_block, last_block):
        if KIND == "table4":
            # What addresses are made of isn't loaded ahead by the compiler.
            words = following
            following = tl.load(
                word_places + (block + 1) * WIDTH, mask=block + 1 < last_block, other=0
            )
        else:
            words = tl.load(word_places + block * WIDTH)
        for part in tl.static_range(PARTS):
            begin = block * DEPTH + part * WIDTH
            is_in = True if IS_EVEN else (begin + tl.arange(0, WIDTH) < num_in)[:, None]
            weight = _widen(words, table_ptr, part, dtype, KIND)
            x = tl.load(x_places[0] + begin, mask=is_row[0][None, :] & is_in, other=0.0)
            if HALVES == 2:
                z = tl.load(x_places[1] + begin, mask=is_row[1][None, :] & is_in, other=0.0)
            if GROUP_SIZE == 0:
                # Tensor cores add fp8 products in few bits: into the total after each block.
                total = tl.dot(weight, x, total, max_num_imprecise_acc=WIDTH)
                if HALVES == 2:
                    second = tl.dot(weight, z, second)
            else:
                if part % PARTS_PER_SCALE == 0:
                    sums = tl.dot(weight, x)
                    if HALVES == 2:
                        others = tl.dot(weight, z)
                else:
                    sums = tl.dot(weight, x, sums)
                    if HALVES == 2:
                        others = tl.dot(weight, z, others)
                if part % PARTS_PER_SCALE == PARTS_PER_SCALE - 1:
                    group = (begin // GROUP_SIZE).to(tl.int64)
                    scales = tl.load(group_scales_ptr + group * num_out + columns)
                    scales = scales.to(tl.float32)[:, None]
                    total = tl.fma(sums, scales, total)
                    if HALVES == 2:
                        second = tl.fma(others, scales, second)
    return total, second


@triton.jit(do_not_specialize=["num_rows"])  # one program for every batch
def _linear_codes_kernel(
    x_ptr,
    words_ptr,
    group_scales_ptr,
    table_ptr,
    row_scales_ptr,
    scales_ptr,
    bias_ptr,
    y_ptr,
    x_stride,
    words_stride,
    y_stride,
    num_rows,
    num_out,
    num_in,
    blocks_per_slice,
    NUM_SLICES: tl.constexpr,
    IS_SPLIT: tl.constexpr,
    HAS_ROW_SCALES: tl.constexpr,
    HAS_SCALES: tl.constexpr,
    HAS_BIAS: tl.constexpr,
    KIND: tl.constexpr,
    PARTS: tl.constexpr,
    GROUP_SIZE: tl.constexpr,
    PARTS_PER_SCALE: tl.constexpr,
    IS_EVEN: tl.constexpr,
    ROWS: tl.constexpr,
    HALVES: tl.constexpr,
    COLUMNS: tl.constexpr,
    DEPTH: tl.constexpr,
):
    tile_row, tile_column = place_of_tile(num_rows, num_out, ROWS, COLUMNS)
    HALF: tl.constexpr = ROWS // HALVES
    rows = tile_row * ROWS + tl.arange(0, HALF)
    columns = tile_column * COLUMNS + tl.arange(0, COLUMNS)
    depth = tl.arange(0, DEPTH // PARTS)
    is_row = (rows < num_rows, rows + HALF < num_rows)
    first_half = x_ptr + rows[None, :].to(tl.int64) * x_stride + depth[:, None]
    x_places = (first_half, first_half + HALF * x_stride)
    # A column that isn't there reads the last one, and isn't written.
    there = tl.minimum(columns, num_out - 1)
    word_places = words_ptr + there[:, None].to(tl.int64) * words_stride + depth[None, :]
    num_blocks = tl.cdiv(num_in, DEPTH)

    if IS_SPLIT or NUM_SLICES == 1:
        y_ptr += tl.program_id(1).to(tl.int64) * num_rows * num_out
        first = tl.program_id(1) * blocks_per_slice
        last = tl.minimum(first + blocks_per_slice, num_blocks)
        halves = _sum_of_slice(
            *(word_places, x_places, group_scales_ptr, table_ptr, is_row, there, first, last),
            *(num_in, num_out, KIND, PARTS, GROUP_SIZE, PARTS_PER_SCALE, IS_EVEN),
            *(ROWS, HALVES, COLUMNS, DEPTH),
        )
    else:
        total = tl.zeros((COLUMNS, HALF), tl.float32)
        second = total
        for index in range(NUM_SLICES):
            first = index * blocks_per_slice
            last = tl.minimum(first + blocks_per_slice, num_blocks)
            sums = _sum_of_slice(
                *(word_places, x_places, group_scales_ptr, table_ptr, is_row, there, first, last),
                *(num_in, num_out, KIND, PARTS, GROUP_SIZE, PARTS_PER_SCALE, IS_EVEN),
                *(ROWS, HALVES, COLUMNS, DEPTH),
            )
            total += sums[0]
            if HALVES == 2:
                second += sums[1]
        halves = (total, second)
    for half in tl.static_range(HALVES):
        store_tile(
            *(tl.trans(halves[half]), row_scales_ptr, scales_ptr, bias_ptr, y_ptr, y_stride),
            *(rows + half * HALF, columns, num_rows, num_out, IS_SPLIT),
            *(HAS_ROW_SCALES, HAS_SCALES, HAS_BIAS),
        )


def linear_codes(
    x: Tensor, packed: PackedCodes, *, out: Tensor, row_scales: Tensor | None = None
) -> None:
    """Write `x` [T, K] times the packed weight to `out` [T, N]; T is at least 1."""
    num_rows, num_in = x.shape
    num_out, tiling = packed.num_out, packed.tiling
    assert num_in == packed.num_in, (x.shape, packed.num_in)
    assert x.stride(1) == out.stride(1) == 1, (x.stride(), out.stride())
    work = cut(tiling, num_rows, num_out, num_in)
    y = partial_sums(work, out)
    _linear_codes_kernel[work.grid](
        x,
        packed.words,
        packed.group_scales,
        packed.table,
        row_scales,
        packed.scales,
        packed.bias,
        y,
        x.stride(0),
        packed.words.stride(0),
        y.stride(-2),
        num_rows,
        num_out,
        num_in,
        work.blocks_per_slice,
        NUM_SLICES=work.num_slices,
        IS_SPLIT=work.is_split,
        HAS_ROW_SCALES=row_scales is not None,
        HAS_SCALES=packed.scales is not None,
        HAS_BIAS=packed.bias is not None,
        KIND=packed.kind,
        PARTS=packed.parts,
        GROUP_SIZE=packed.group_size,
        PARTS_PER_SCALE=packed.parts_per_scale,
        IS_EVEN=num_in % tiling.depth == 0,
        ROWS=work.tile.rows,
        HALVES=packed.halves_of(work.tile),
        COLUMNS=work.columns,
        DEPTH=tiling.depth,
        num_warps=work.tile.num_warps,
        num_stages=work.tile.num_stages,
        **tiling.options,
    )
    if work.is_split:
        add_slices(y, out, row_scales=row_scales, scales=packed.scales, bias=packed.bias)
