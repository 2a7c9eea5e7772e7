"""Attention of tiles of queries over the paged cache, in chunks of keys: `chunk_kernel.py`.

A tile is ROWS rows of one sequence and one key head: row r is token r // G of the sequence's step
and head r % G of the G query heads that share the key head. `attend_whole_kernel` goes through all
chunks of a tile and merges them itself (prefill); in `attend_split_kernel` each program takes some
chunks and writes each down for `merge_kernel` (decode, where tiles are few and contexts long). The
same steps in the same order, without contraction to fused multiply-adds: both give the same bits.

q: [T, H, D] fp16 or bf16; cache: [num_blocks, 2, Hkv, block_size, D], q's type, fp8 or its bits;
sequences: [B, 4] int32: first token, tokens, context length, line of the block tables;
tiles: [n, 4] int32: sequence, first row, first line of the partial results, unused;
partials: [lines, D] fp32, stats: [lines, 2] fp32: best, total.
Decode is memory bound: 2 * D * itemsize bytes for each key of a key head, once. Prefill is bound by
the products: 4 * D operations for each pair of query and key.

Dao et al., Flash-Decoding for long-context inference (2023).
"""

from __future__ import annotations

import triton
import triton.language as tl

from .chunk_kernel import attend_chunk, divided, merge, zeros


@triton.jit
def _tile(
    sequences_ptr,
    tiles_ptr,
    window,
    G: tl.constexpr,
    ROWS: tl.constexpr,
    KEYS: tl.constexpr,
    AGAIN: tl.constexpr = False,
):
    """Return this program's tile: its rows, its tokens' context, its first and end key.

    Read AGAIN at the end, it doesn't take registers in between.
    """
    tile = tl.program_id(0)
    sequence = tl.load(tiles_ptr + 4 * tile, volatile=AGAIN)
    first_row = tl.load(tiles_ptr + 4 * tile + 1, volatile=AGAIN)
    first_token = tl.load(sequences_ptr + 4 * sequence, volatile=AGAIN)
    num_tokens = tl.load(sequences_ptr + 4 * sequence + 1, volatile=AGAIN)
    context_len = tl.load(sequences_ptr + 4 * sequence + 2, volatile=AGAIN)

    num_cached = context_len - num_tokens
    num_rows = tl.minimum(num_tokens * G - first_row, ROWS)
    first_position = num_cached + first_row // G
    end = num_cached + tl.cdiv(first_row + num_rows, G)
    # A whole number of KEYS from position 0, as every row's first is.
    first = tl.maximum(first_position + 1 - window, 0) // KEYS * KEYS
    return sequence, first_row, num_rows, first_token, num_cached, context_len, first, end


@triton.jit
def _load_q(q_ptr, q_stride, tokens, heads, is_row, HEAD_DIM: tl.constexpr, HEAD_PAD: tl.constexpr):
    dims = tl.arange(0, HEAD_PAD)
    places = q_ptr + tokens.to(tl.int64)[:, None] * q_stride + heads[:, None] * HEAD_DIM + dims
    return tl.load(places, mask=is_row[:, None] & (dims < HEAD_DIM)[None, :], other=0.0)


@triton.jit(do_not_specialize=["window"])
def attend_split_kernel(
    q_ptr,
    cache_ptr,
    sequences_ptr,
    tiles_ptr,
    tables_ptr,
    partials_ptr,
    stats_ptr,
    q_stride,
    block_stride,
    table_stride,
    score_scale,
    cap,
    window,
    G: tl.constexpr,
    NUM_KV_HEADS: tl.constexpr,
    HEAD_DIM: tl.constexpr,
    HEAD_PAD: tl.constexpr,
    SUM_WIDTH: tl.constexpr,
    NUM_SUMS: tl.constexpr,
    ROWS: tl.constexpr,
    KEYS: tl.constexpr,
    CHUNK: tl.constexpr,
    BLOCK_SIZE: tl.constexpr,
    FP8: tl.constexpr,
    HAS_CAP: tl.constexpr,
    HAS_WINDOW: tl.constexpr,
):
    """Grid: (tiles, Hkv, splits); a program takes every splits-th chunk of its tile."""
    sequence, first_row, num_rows, first_token, num_cached, context_len, first, end = _tile(
        sequences_ptr, tiles_ptr, window, G, ROWS, KEYS
    )
    kv_head, split, num_splits = tl.program_id(1), tl.program_id(2), tl.num_programs(2)
    partial = tl.load(tiles_ptr + 4 * tl.program_id(0) + 2).to(tl.int64)
    table_ptr = tables_ptr + tl.load(sequences_ptr + 4 * sequence + 3).to(tl.int64) * table_stride
    rows = tl.arange(0, ROWS)
    is_row = rows < num_rows
    tokens = (first_row + rows) // G
    positions = tl.where(is_row, num_cached + tokens, -1)
    heads = kv_head * G + (first_row + rows) % G
    first_chunk, end_chunk = first // CHUNK, tl.cdiv(end, CHUNK)

    has_work = is_row & (first_chunk + split < end_chunk)
    q = _load_q(q_ptr, q_stride, first_token + tokens, heads, has_work, HEAD_DIM, HEAD_PAD)
    for chunk in range(first_chunk + split, end_chunk, num_splits):
        best, total, sums = attend_chunk(
            q,
            positions,
            tl.maximum(first, chunk * CHUNK),
            tl.minimum(end, (chunk + 1) * CHUNK),
            context_len,
            cache_ptr + kv_head * (BLOCK_SIZE * HEAD_DIM),
            table_ptr,
            block_stride,
            NUM_KV_HEADS * BLOCK_SIZE * HEAD_DIM,
            score_scale,
            cap,
            window,
            HEAD_DIM,
            0,
            SUM_WIDTH,
            NUM_SUMS,
            ROWS,
            KEYS,
            BLOCK_SIZE,
            FP8,
            HAS_CAP,
            HAS_WINDOW,
        )
        lines = partial + ((chunk - first_chunk) * NUM_KV_HEADS + kv_head) * num_rows + rows
        tl.store(stats_ptr + 2 * lines, best, mask=is_row)
        tl.store(stats_ptr + 2 * lines + 1, total, mask=is_row)
        for i in tl.static_range(NUM_SUMS):
            dims = i * SUM_WIDTH + tl.arange(0, SUM_WIDTH)
            places = partials_ptr + lines[:, None] * HEAD_DIM + dims[None, :]
            tl.store(places, sums[i], mask=is_row[:, None] & (dims < HEAD_DIM)[None, :])


@triton.jit(do_not_specialize=["window"])
def attend_whole_kernel(
    q_ptr,
    cache_ptr,
    sequences_ptr,
    tiles_ptr,
    tables_ptr,
    out_ptr,
    q_stride,
    out_stride,
    block_stride,
    table_stride,
    score_scale,
    cap,
    window,
    G: tl.constexpr,
    NUM_KV_HEADS: tl.constexpr,
    HEAD_DIM: tl.constexpr,
    HEAD_PAD: tl.constexpr,
    SUM_START: tl.constexpr,
    SUM_WIDTH: tl.constexpr,
    NUM_SUMS: tl.constexpr,
    ROWS: tl.constexpr,
    KEYS: tl.constexpr,
    CHUNK: tl.constexpr,
    BLOCK_SIZE: tl.constexpr,
    FP8: tl.constexpr,
    HAS_CAP: tl.constexpr,
    HAS_WINDOW: tl.constexpr,
):
    """Grid: (tiles, Hkv); writes NUM_SUMS * SUM_WIDTH of a head's D from SUM_START on."""
    sequence, first_row, num_rows, first_token, num_cached, context_len, first, end = _tile(
        sequences_ptr, tiles_ptr, window, G, ROWS, KEYS
    )
    kv_head = tl.program_id(1)
    table_ptr = tables_ptr + tl.load(sequences_ptr + 4 * sequence + 3).to(tl.int64) * table_stride
    rows = tl.arange(0, ROWS)
    is_row = rows < num_rows
    tokens = (first_row + rows) // G
    positions = tl.where(is_row, num_cached + tokens, -1)
    heads = kv_head * G + (first_row + rows) % G
    tokens += first_token

    q = _load_q(q_ptr, q_stride, tokens, heads, is_row, HEAD_DIM, HEAD_PAD)
    best = tl.full([ROWS], -float("inf"), tl.float32)
    total = tl.zeros([ROWS], tl.float32)
    sums = zeros(ROWS, SUM_WIDTH, NUM_SUMS)
    for chunk in range(first // CHUNK, tl.cdiv(end, CHUNK)):
        chunk_best, chunk_total, chunk_sums = attend_chunk(
            q,
            positions,
            tl.maximum(first, chunk * CHUNK),
            tl.minimum(end, (chunk + 1) * CHUNK),
            context_len,
            cache_ptr + kv_head * (BLOCK_SIZE * HEAD_DIM),
            table_ptr,
            block_stride,
            NUM_KV_HEADS * BLOCK_SIZE * HEAD_DIM,
            score_scale,
            cap,
            window,
            HEAD_DIM,
            SUM_START,
            SUM_WIDTH,
            NUM_SUMS,
            ROWS,
            KEYS,
            BLOCK_SIZE,
            FP8,
            HAS_CAP,
            HAS_WINDOW,
        )
        best, total, sums = merge(best, total, sums, chunk_best, chunk_total, chunk_sums, NUM_SUMS)

    _, first_row, num_rows, first_token, _, _, _, _ = _tile(
        sequences_ptr, tiles_ptr, window, G, ROWS, KEYS, AGAIN=True
    )
    is_row = rows < num_rows
    tokens = first_token + (first_row + rows) // G
    heads = kv_head * G + (first_row + rows) % G
    dims = SUM_START + tl.arange(0, SUM_WIDTH)
    places = out_ptr + tokens.to(tl.int64)[:, None] * out_stride + heads[:, None] * HEAD_DIM + dims
    for i in tl.static_range(NUM_SUMS):
        out = divided(sums[i], total).to(out_ptr.dtype.element_ty)
        mask = is_row[:, None] & (i * SUM_WIDTH + dims < HEAD_DIM)[None, :]
        tl.store(places + i * SUM_WIDTH, out, mask=mask)
