"""Merge the chunks that `attend_split_kernel` wrote, in ascending order: `attend_kernel.py`.

One program for each row of each tile; memory bound, and small beside the keys: 4 * (D + 2) bytes
for each row and chunk.
"""

from __future__ import annotations

import triton
import triton.language as tl

from .chunk_kernel import divided, merge, zeros


@triton.jit(do_not_specialize=["window"])
def merge_kernel(
    partials_ptr,
    stats_ptr,
    sequences_ptr,
    tiles_ptr,
    out_ptr,
    out_stride,
    window,
    G: tl.constexpr,
    NUM_KV_HEADS: tl.constexpr,
    HEAD_DIM: tl.constexpr,
    HEAD_PAD: tl.constexpr,
    ROWS: tl.constexpr,
    CHUNK: tl.constexpr,
):
    """Grid: (tiles, Hkv, rows)."""
    tile, kv_head, row = tl.program_id(0), tl.program_id(1), tl.program_id(2)
    sequence = tl.load(tiles_ptr + 4 * tile)
    first_row = tl.load(tiles_ptr + 4 * tile + 1)
    partial = tl.load(tiles_ptr + 4 * tile + 2).to(tl.int64)
    first_token = tl.load(sequences_ptr + 4 * sequence)
    num_tokens = tl.load(sequences_ptr + 4 * sequence + 1)
    num_cached = tl.load(sequences_ptr + 4 * sequence + 2) - num_tokens

    num_rows = tl.minimum(num_tokens * G - first_row, ROWS)
    token = (first_row + row) // G
    position = num_cached + token
    tile_first = tl.maximum(num_cached + first_row // G + 1 - window, 0) // CHUNK
    first = tl.maximum(position + 1 - window, 0) // CHUNK
    end = tl.where(row < num_rows, tl.cdiv(position + 1, CHUNK), first)

    dims = tl.arange(0, HEAD_PAD)
    is_dim = (dims < HEAD_DIM)[None, :]
    one = tl.arange(0, 1)
    best = tl.full([1], -float("inf"), tl.float32)
    total = tl.zeros([1], tl.float32)
    sums = zeros(1, HEAD_PAD, 1)
    for chunk in tl.range(first, end, num_stages=4):
        lines = partial + ((chunk - tile_first) * NUM_KV_HEADS + kv_head) * num_rows + row + one
        chunk_best = tl.load(stats_ptr + 2 * lines)
        chunk_total = tl.load(stats_ptr + 2 * lines + 1)
        places = partials_ptr + lines[:, None] * HEAD_DIM + dims[None, :]
        chunk_sums = (tl.load(places, mask=is_dim, other=0.0),)
        best, total, sums = merge(best, total, sums, chunk_best, chunk_total, chunk_sums, 1)

    head = kv_head * G + (first_row + row) % G
    place = out_ptr + (first_token + token).to(tl.int64) * out_stride + head * HEAD_DIM
    out = divided(sums[0], total).to(out_ptr.dtype.element_ty)
    tl.store(place + dims[None, :], out, mask=is_dim & (row < num_rows))
