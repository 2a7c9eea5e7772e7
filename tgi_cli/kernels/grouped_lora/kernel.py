"""Low-rank adapters in Triton: `grouped_lora/__init__.py` has the formula.

`shrink`: [slices, outputs, T, R] fp32 partial sums of x @ a.T, one program for each tile of 16 rows
of one adapter, output and slice of K; slices are always programs of their own, because a rank is
too few columns to keep a GPU busy. `expand`: one program for each tile of rows and 128 columns of
one output adds the slices in order and multiplies by b. Where a row has no adapter nothing is read
or written.

Memory bound: 2 * r * (outputs * K + N) bytes for each adapter in the batch, x once for each output
and y twice. Tensor cores do the products, in tiles of 16 rows for every T (mma.sync m16n8k16,
mfma 16x16x16), so that there is one order of sums.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import triton
import triton.language as tl

from tgi_cli.kernels import devices

from .packing import COLUMNS

if TYPE_CHECKING:
    from torch import Tensor

    from tgi_cli.kernels.expert_routing import ExpertTiles

    from .packing import PackedLora

_DEPTH = 128
_MIN_BLOCKS, _MAX_SLICES = 4, 8


@triton.jit(do_not_specialize=["num_tokens"])  # one program for every batch
def _shrink_kernel(
    x_ptr,
    a_ptr,
    ranks_ptr,
    partial_ptr,
    rows_ptr,
    adapters_ptr,
    x_stride,
    num_tokens,
    num_outputs,
    num_in,
    blocks_per_slice,
    IS_EVEN: tl.constexpr,
    ROOM: tl.constexpr,
    RANKS: tl.constexpr,
    ROWS: tl.constexpr,
    DEPTH: tl.constexpr,
):
    tile, output, index = tl.program_id(0), tl.program_id(1), tl.program_id(2)
    adapter = tl.load(adapters_ptr + tile).to(tl.int64)
    if adapter < 0:
        return
    rows = tl.load(rows_ptr + tile * ROWS + tl.arange(0, ROWS))
    is_row = rows < num_tokens
    rank = tl.arange(0, RANKS)  # RANKS is the next power of two from ROOM up
    is_rank = rank < tl.load(ranks_ptr + adapter)
    depth = tl.arange(0, DEPTH)
    x_places = x_ptr + rows[:, None].to(tl.int64) * x_stride + depth[None, :]
    a_rows = (adapter * num_outputs + output) * ROOM + rank
    a_places = a_ptr + a_rows[None, :] * num_in + depth[:, None]

    total = tl.zeros((ROWS, RANKS), tl.float32)
    first = index * blocks_per_slice
    last = tl.minimum(first + blocks_per_slice, tl.cdiv(num_in, DEPTH))
    for block in range(first, last):
        begin = block * DEPTH
        x_mask, a_mask = is_row[:, None], is_rank[None, :]
        if not IS_EVEN:
            x_mask = x_mask & (begin + depth < num_in)[None, :]
            a_mask = a_mask & (begin + depth < num_in)[:, None]
        x = tl.load(x_places + begin, mask=x_mask, other=0.0)
        a = tl.load(a_places + begin, mask=a_mask, other=0.0)
        total = tl.dot(x, a, total)
    row = (index * num_outputs + output).to(tl.int64) * num_tokens + rows
    places = partial_ptr + row[:, None] * ROOM + rank[None, :]
    tl.store(places, total, mask=is_row[:, None] & (rank < ROOM)[None, :])


@triton.jit(do_not_specialize=["num_tokens"])  # one program for every batch
def _expand_kernel(
    partial_ptr,
    b_ptr,
    y_ptr,
    rows_ptr,
    adapters_ptr,
    column_tiles_ptr,
    y_stride,
    num_tokens,
    num_outputs,
    num_out,
    NUM_SLICES: tl.constexpr,
    IS_ALIGNED: tl.constexpr,
    ROOM: tl.constexpr,
    RANKS: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
):
    tile = tl.program_id(0)
    adapter = tl.load(adapters_ptr + tile).to(tl.int64)
    if adapter < 0:
        return
    rows = tl.load(rows_ptr + tile * ROWS + tl.arange(0, ROWS))
    is_row = rows < num_tokens
    column_tile = column_tiles_ptr + tl.program_id(1) * 3
    output, first_column = tl.load(column_tile), tl.load(column_tile + 1)
    last_column = tl.load(column_tile + 2)
    if IS_ALIGNED:
        first_column = tl.multiple_of(first_column, 16)
        last_column = tl.multiple_of(last_column, 16)
    columns = first_column + tl.arange(0, COLUMNS)
    is_column = columns < last_column
    rank = tl.arange(0, RANKS)
    is_rank = rank < ROOM

    inner = tl.zeros((ROWS, RANKS), tl.float32)
    for index in tl.static_range(NUM_SLICES):
        row = (index * num_outputs + output).to(tl.int64) * num_tokens + rows
        places = partial_ptr + row[:, None] * ROOM + rank[None, :]
        inner += tl.load(places, mask=is_row[:, None] & is_rank[None, :], other=0.0)
    b_places = b_ptr + (adapter * num_out + columns)[None, :] * ROOM + rank[:, None]
    b = tl.load(b_places, mask=is_column[None, :] & is_rank[:, None], other=0.0)
    total = tl.dot(inner.to(b.dtype), b)
    y_places = y_ptr + rows[:, None].to(tl.int64) * y_stride + columns[None, :]
    mask = is_row[:, None] & is_column[None, :]
    total += tl.load(y_places, mask=mask, other=0.0).to(tl.float32)
    tl.store(y_places, total.to(y_ptr.dtype.element_ty), mask=mask)


def shrink(x: Tensor, packed: PackedLora, tiles: ExpertTiles) -> Tensor:
    """Return the partial sums [slices, outputs, T, R] fp32; undefined where there's no adapter."""
    num_tokens, num_in = x.shape
    _, num_outputs, room, _ = packed.a.shape
    assert num_in == packed.a.shape[3], (x.shape, packed.a.shape)
    assert x.stride(1) == 1, x.stride()
    assert x.dtype == packed.a.dtype, (x.dtype, packed.a.dtype)
    num_blocks = triton.cdiv(num_in, _DEPTH)
    blocks_per_slice = max(_MIN_BLOCKS, triton.cdiv(num_blocks, _MAX_SLICES))
    num_slices = triton.cdiv(num_blocks, blocks_per_slice)
    shape = (num_slices, num_outputs, num_tokens, room)
    partial = torch.empty(shape, dtype=torch.float32, device=x.device)
    _shrink_kernel[(len(tiles.experts), num_outputs, num_slices)](
        *(x, packed.a, packed.ranks, partial, tiles.pairs, tiles.experts),
        *(x.stride(0), num_tokens, num_outputs, num_in, blocks_per_slice),
        IS_EVEN=num_in % _DEPTH == 0,
        ROOM=room,
        RANKS=triton.next_power_of_2(room),
        ROWS=tiles.rows,
        DEPTH=_DEPTH,
        num_warps=4,
        **_options(num_stages=3),
    )
    return partial


def expand(partial: Tensor, packed: PackedLora, tiles: ExpertTiles, y: Tensor) -> None:
    """Add the products of `shrink`'s sums and b to `y` [T, N]."""
    num_slices, num_outputs, num_tokens, room = partial.shape
    num_out = packed.b.shape[1]
    assert y.shape == (num_tokens, num_out), (y.shape, num_tokens, num_out)
    assert y.stride(1) == 1, y.stride()
    ranks, lanes = triton.next_power_of_2(room), 64 if devices.target() == "gfx942" else 32
    _expand_kernel[(len(tiles.experts), len(packed.column_tiles))](
        *(partial, packed.b, y, tiles.pairs, tiles.experts, packed.column_tiles),
        *(y.stride(0), num_tokens, num_outputs, num_out),
        NUM_SLICES=num_slices,
        IS_ALIGNED=packed.is_aligned,
        ROOM=room,
        RANKS=ranks,
        ROWS=tiles.rows,
        COLUMNS=COLUMNS,
        num_warps=min(4, tiles.rows * ranks // (4 * lanes)),  # four fp32 of `partial` for a thread
        **_options(),
    )


def _options(num_stages: int = 1) -> dict[str, int]:
    if devices.target() == "gfx942":  # 64 KiB of shared memory
        return {"matrix_instr_nonkdim": 16, "num_stages": min(num_stages, 2)}
    return {"num_stages": num_stages}
