"""Products of pairs of a token and an expert in Triton, and their sum.

    z[p] = x[p // top_k] @ weight[experts[p]].T           p: a pair
    y[t] = sum over j of weights[t, j] * (slice 0 + slice 1 + ...)[t * top_k + j]

x: [T, K] fp16 or bf16; weight: [E, N, K] of x's type or four-bit codes; z: [P, N], or partial sums
of slices of K [slices, P, N] fp32; weights: [T, top_k] fp32. A program computes a tile of the
pairs of one expert (`expert_routing.ExpertTiles`) by the device functions of `linear_16bit` and
`linear_int4`, whose bounds these products have for each expert with its rows. A program whose tile
has no expert ends at once. The sum is memory bound: 4 * slices * P * N bytes and y.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import triton
import triton.language as tl

from tgi_cli.kernels.linear_16bit import kernel as kernel_16bit
from tgi_cli.kernels.linear_int4 import kernel as kernel_int4
from tgi_cli.kernels.linear_tiles.kernel import add_slices, place_of_tile, store_tile
from tgi_cli.kernels.linear_tiles.tiling import cut

if TYPE_CHECKING:
    from torch import Tensor

    from tgi_cli.kernels.expert_routing import ExpertTiles
    from tgi_cli.kernels.linear_tiles.tiling import Tiling

    from .packing import PackedExperts

_COLUMNS_TO_ADD = 512


@triton.jit(do_not_specialize=["num_pairs", "num_rows"])  # one program for every batch
def _products_16bit_kernel(
    x_ptr,
    weight_ptr,
    y_ptr,
    pairs_ptr,
    experts_ptr,
    x_stride,
    weight_stride,
    num_pairs,
    num_rows,
    num_out,
    num_in,
    blocks_per_slice,
    TOP_K: tl.constexpr,
    NUM_SLICES: tl.constexpr,
    IS_SPLIT: tl.constexpr,
    IS_EVEN: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
    DEPTH: tl.constexpr,
):
    tile_row, tile_column = place_of_tile(num_rows, num_out, ROWS, COLUMNS)
    expert = tl.load(experts_ptr + tile_row)
    if expert < 0:
        return
    pairs = tl.load(pairs_ptr + tile_row * ROWS + tl.arange(0, ROWS))
    is_row = pairs < num_pairs
    columns = tile_column * COLUMNS + tl.arange(0, COLUMNS)
    depth = tl.arange(0, DEPTH)
    x_places = x_ptr + (pairs // TOP_K)[:, None].to(tl.int64) * x_stride + depth[None, :]
    # A column that isn't there reads the last one, and isn't written.
    there = expert.to(tl.int64) * num_out + tl.minimum(columns, num_out - 1)
    weight_places = weight_ptr + there[None, :] * weight_stride + depth[:, None]
    total = kernel_16bit.sums_of_tile(
        *(x_places, weight_places, is_row, num_in, blocks_per_slice),
        *(NUM_SLICES, IS_SPLIT, ROWS, COLUMNS, DEPTH, IS_EVEN),
    )
    if IS_SPLIT:
        y_ptr += tl.program_id(1).to(tl.int64) * num_pairs * num_out
    store_tile(
        *(total, None, None, None, y_ptr, num_out, pairs, columns, num_pairs, num_out),
        *(IS_SPLIT, False, False, False),
    )


@triton.jit(do_not_specialize=["num_pairs", "num_rows"])  # one program for every batch
def _products_int4_kernel(
    x_ptr,
    words_ptr,
    grids_ptr,
    masks_ptr,
    y_ptr,
    pairs_ptr,
    experts_ptr,
    x_stride,
    words_stride,
    grids_stride,
    num_pairs,
    num_rows,
    num_out,
    num_in,
    num_columns,
    blocks_per_slice,
    TOP_K: tl.constexpr,
    NUM_SLICES: tl.constexpr,
    IS_SPLIT: tl.constexpr,
    IS_EVEN: tl.constexpr,
    IS_WIDE: tl.constexpr,
    GROUP: tl.constexpr,
    ROWS: tl.constexpr,
    HALVES: tl.constexpr,
    COLUMNS: tl.constexpr,
    WORDS: tl.constexpr,
):
    tile_row, tile_column = place_of_tile(num_rows, num_out, ROWS, COLUMNS)
    expert = tl.load(experts_ptr + tile_row)
    if expert < 0:
        return
    HALF: tl.constexpr = ROWS // HALVES
    pairs_ptr += tile_row * ROWS + tl.arange(0, HALF)
    pairs = (tl.load(pairs_ptr), tl.load(pairs_ptr + ROWS - HALF))
    is_row = (pairs[0] < num_pairs, pairs[1] < num_pairs)
    columns = tile_column * COLUMNS + tl.arange(0, COLUMNS)
    first_part = x_ptr + tl.arange(0, WORDS)[:, None]
    x_places = (
        first_part + (pairs[0] // TOP_K)[None, :].to(tl.int64) * x_stride,
        first_part + (pairs[1] // TOP_K)[None, :].to(tl.int64) * x_stride,
    )
    words_ptr += expert.to(tl.int64) * words_stride
    grids_ptr += expert.to(tl.int64) * grids_stride
    halves = kernel_int4.sums_of_tile(
        *(x_places, is_row, words_ptr, grids_ptr, masks_ptr, columns, num_in, num_columns),
        *(blocks_per_slice, NUM_SLICES, IS_SPLIT, ROWS, HALVES, COLUMNS, WORDS, GROUP),
        *(IS_WIDE, IS_EVEN),
    )
    if IS_SPLIT:
        y_ptr += tl.program_id(1).to(tl.int64) * num_pairs * num_out
    for half in tl.static_range(HALVES):
        store_tile(
            *(tl.trans(halves[half]), None, None, None, y_ptr, num_out, pairs[half], columns),
            *(num_pairs, num_out, IS_SPLIT, False, False, False),
        )


@triton.jit(do_not_specialize=["num_pairs"])  # one program for every batch
def _combine_kernel(
    products_ptr,
    weights_ptr,
    y_ptr,
    num_pairs,
    width,
    y_stride,
    TOP_K: tl.constexpr,
    NUM_SLICES: tl.constexpr,
    COLUMNS: tl.constexpr,
):
    # One program for each token and COLUMNS of it.
    token = tl.program_id(0).to(tl.int64)
    columns = tl.program_id(1) * COLUMNS + tl.arange(0, COLUMNS)
    mask = columns < width
    total = tl.zeros((COLUMNS,), tl.float32)
    for place in range(TOP_K):
        pair = token * TOP_K + place
        product = tl.zeros((COLUMNS,), tl.float32)
        for index in tl.static_range(NUM_SLICES):
            row = index * num_pairs.to(tl.int64) + pair
            product += tl.load(products_ptr + row * width + columns, mask=mask, other=0.0)
        total += tl.load(weights_ptr + pair) * product
    tl.store(y_ptr + token * y_stride + columns, total.to(y_ptr.dtype.element_ty), mask=mask)


def expert_products(
    x: Tensor,
    packed: PackedExperts,
    tiles: ExpertTiles,
    tiling: Tiling,
    *,
    top_k: int,
    dtype: torch.dtype,
) -> Tensor:
    """Return the product of each pair, [1, P, N] in `dtype`, or of slices, [slices, P, N] fp32.

    x: [T, K], of which a token has `top_k` pairs that follow one another; the one tile of `tiling`
    has the rows of `tiles`.
    """
    num_pairs, num_out, num_in = tiles.num_pairs, packed.num_out, packed.num_in
    assert x.shape == (num_pairs // top_k, num_in), (x.shape, num_in)
    assert x.stride(1) == 1, x.stride()
    num_rows = len(tiles.pairs)
    work = cut(tiling, num_rows, num_out, num_in, num_products=tiles.top_k)
    assert work.tile.rows == tiles.rows, (work.tile, tiles.rows)
    slices = work.num_slices if work.is_split else 1
    kind = torch.float32 if work.is_split else dtype
    y = torch.empty(slices, num_pairs, num_out, dtype=kind, device=x.device)
    shape = (num_pairs, num_rows, num_out, num_in)
    options = {
        "TOP_K": top_k,
        "NUM_SLICES": work.num_slices,
        "IS_SPLIT": work.is_split,
        "IS_EVEN": num_in % tiling.depth == 0,
        "ROWS": tiles.rows,
        "COLUMNS": work.columns,
        "num_warps": work.tile.num_warps,
        "num_stages": work.tile.num_stages,
        **tiling.options,
    }
    codes, weight = packed.codes, packed.weight
    if weight is not None:
        assert weight.dtype == x.dtype, (weight.dtype, x.dtype)
        _products_16bit_kernel[work.grid](
            *(x, weight, y, tiles.pairs, tiles.experts, x.stride(0), weight.stride(1), *shape),
            work.blocks_per_slice,
            DEPTH=tiling.depth,
            **options,
        )
        return y
    assert codes is not None
    words, grids = codes.words, codes.grids
    _products_int4_kernel[work.grid](
        *(x, words, grids, codes.masks, y, tiles.pairs, tiles.experts),
        *(x.stride(0), words.stride(0), grids.stride(0), *shape, words.shape[2]),
        work.blocks_per_slice,
        IS_WIDE=grids.shape[2] == 2,
        GROUP=codes.group_size,
        WORDS=words.shape[3],
        HALVES=kernel_int4.halves_of(work.tile),
        **options,
    )
    return y


def added(products: Tensor, dtype: torch.dtype) -> Tensor:
    """Return the products [1 or slices, P, N] of pairs whole, [P, N] in `dtype`."""
    if len(products) == 1:
        return products[0]
    y = products.new_empty(products.shape[1:], dtype=dtype)
    add_slices(products, y)
    return y


def combine(products: Tensor, weights: Tensor, *, out: Tensor) -> None:
    """Write to `out` [T, H] the sum of the products [slices, P, H] fp32 of each token's pairs."""
    num_slices, num_pairs, width = products.shape
    num_tokens, top_k = weights.shape
    assert num_pairs == num_tokens * top_k, (num_pairs, weights.shape)
    assert products.dtype == weights.dtype == torch.float32
    assert weights.is_contiguous()
    _combine_kernel[(num_tokens, triton.cdiv(width, _COLUMNS_TO_ADD))](
        products,
        weights,
        out,
        num_pairs,
        width,
        out.stride(0),
        TOP_K=top_k,
        NUM_SLICES=num_slices,
        COLUMNS=_COLUMNS_TO_ADD,
        num_warps=4,
    )
