"""Attention of tiles of queries over the paged cache, in chunks of keys counted from position 0.

    chunk:  best = max_j s_j,  total = sum_j 2**(s_j - best),  sum = sum_j 2**(s_j - best) v_j
    merged: the chunks' (best, total, sum) in ascending order;  out = sum / total
    s_j = cap(scale * q . k_j) * log2(e)

A tile is ROWS rows of one sequence and one key head: row r is token r // G of the sequence's step
and head r % G of the G query heads that share the key head. `attend_whole_kernel` goes through all
chunks of a tile and merges them itself (prefill); in `attend_split_kernel` each program takes some
chunks and writes each down for `merge_kernel` (decode, where tiles are few and contexts long). The
same steps in the same order, without contraction to fused multiply-adds: both give the same bits.
A row's bits don't depend on the other rows of its tile, nor on masked keys: these add exact zeros.
(Only a NaN among a sequence's own later values would spread to rows of its tile.)

q: [T, H, D] fp16 or bf16; cache: [num_blocks, 2, Hkv, block_size, D], q's type or fp8 bits;
sequences: [B, 4] int32: first token, tokens, context length, line of the block tables;
tiles: [n, 4] int32: sequence, first row, first line of the partial results, unused;
partials: [lines, D] fp32, stats: [lines, 2] fp32: best, total.
Decode is memory bound: 2 * D * itemsize bytes for each key of a key head, once. Prefill is bound by
the products: 4 * D operations for each pair of query and key.

Milakov and Gimelshein, Online normalizer calculation for softmax, arXiv:1805.02867; Dao et al.,
FlashAttention, arXiv:2205.14135; Dao et al., Flash-Decoding for long-context inference (2023).
"""

from __future__ import annotations

import triton
import triton.language as tl

from .fp8_kernel import widen


@triton.jit
def merge(best, total, acc, chunk_best, chunk_total, chunk_acc):
    """Return (best, total, acc) [R], [R], [R, V] with the next chunk added."""
    new_best = tl.maximum(best, chunk_best)
    shift = tl.where(new_best == -float("inf"), 0.0, new_best)  # nothing seen so far
    kept, added = tl.exp2(best - shift), tl.exp2(chunk_best - shift)
    new_total = total * kept + chunk_total * added
    return new_best, new_total, acc * kept[:, None] + chunk_acc * added[:, None]


@triton.jit
def divided(acc, total):
    """Return acc / total, or zeros for a row that saw no key."""
    return acc / tl.where(total == 0.0, 1.0, total)[:, None]


@triton.jit
def _places(
    cache_ptr,
    table_ptr,
    block_stride,
    start,
    context_len,
    KEYS: tl.constexpr,
    BLOCK_SIZE: tl.constexpr,
    HEAD_DIM: tl.constexpr,
):
    """Return where the KEYS keys from `start` on lie, [KEYS]: in one block or in two."""
    tl.static_assert(KEYS <= 2 * BLOCK_SIZE)
    keys = tl.arange(0, KEYS)
    table_ptr += start // BLOCK_SIZE
    block = tl.load(table_ptr).to(tl.int64)  # block * block_stride can pass 2**31
    if KEYS <= BLOCK_SIZE:
        return cache_ptr + block * block_stride + (start % BLOCK_SIZE + keys) * HEAD_DIM
    else:
        second = tl.load(table_ptr + 1, mask=start + BLOCK_SIZE < context_len, other=0)
        blocks = tl.where(keys < BLOCK_SIZE, block, second.to(tl.int64))
        return cache_ptr + blocks * block_stride + keys % BLOCK_SIZE * HEAD_DIM


@triton.jit
def _load_heads(
    places, keys, context_len, START: tl.constexpr, WIDTH: tl.constexpr, HEAD_DIM: tl.constexpr
):
    """Return [KEYS, WIDTH] of a head's vectors from number START on, zeros beyond the context."""
    dims = START + tl.arange(0, WIDTH)
    mask = (keys < context_len)[:, None]
    if START + WIDTH > HEAD_DIM:
        mask = mask & (dims < HEAD_DIM)[None, :]
    return tl.load(places[:, None] + dims[None, :], mask=mask, other=0.0)


@triton.jit
def _widened(x, like, FP8: tl.constexpr):
    if x.dtype == tl.uint8:
        return widen(x, FP8).to(like)
    else:  # without it the compiler takes the types of both returns for possible
        return x.to(like)


@triton.jit
def attend_chunk(
    q,
    positions,
    first,
    end,
    context_len,
    cache_ptr,
    table_ptr,
    block_stride,
    values_offset,
    score_scale,
    cap,
    window,
    HEAD_DIM: tl.constexpr,
    VALUE_START: tl.constexpr,
    VALUE_WIDTH: tl.constexpr,
    NUM_VALUES: tl.constexpr,
    ROWS: tl.constexpr,
    KEYS: tl.constexpr,
    BLOCK_SIZE: tl.constexpr,
    FP8: tl.constexpr,
    HAS_CAP: tl.constexpr,
    HAS_WINDOW: tl.constexpr,
):
    """Return best, total and one or two parts of the sum over keys `first:end` of one chunk."""
    HEAD_PAD: tl.constexpr = q.shape[1]
    UNUSED: tl.constexpr = 16
    best = tl.full([ROWS], -float("inf"), tl.float32)
    total = tl.zeros([ROWS], tl.float32)
    acc = tl.zeros([ROWS, VALUE_WIDTH], tl.float32)
    acc2 = tl.zeros([ROWS, VALUE_WIDTH if NUM_VALUES == 2 else UNUSED], tl.float32)
    for start in tl.range(first, end, KEYS):
        keys = start + tl.arange(0, KEYS)
        places = _places(
            cache_ptr, table_ptr, block_stride, start, context_len, KEYS, BLOCK_SIZE, HEAD_DIM
        )

        k = _widened(_load_heads(places, keys, context_len, 0, HEAD_PAD, HEAD_DIM), q.dtype, FP8)
        scores = tl.dot(q, tl.trans(k)) * score_scale
        if HAS_CAP:  # cap is in units of log2, too; tanh(x) is 2 * sigmoid(2 * x) - 1
            scores = cap * (2.0 * tl.sigmoid(scores) - 1.0)
        is_seen = keys[None, :] <= positions[:, None]
        if HAS_WINDOW:
            is_seen = is_seen & (keys[None, :] > positions[:, None] - window)
        scores = tl.where(is_seen, scores, -float("inf"))

        new_best = tl.maximum(best, tl.max(scores, 1))
        shift = tl.where(new_best == -float("inf"), 0.0, new_best)
        weights = tl.exp2(scores - shift[:, None])
        kept = tl.exp2(best - shift)
        total = total * kept + tl.sum(weights, 1)
        best = new_best
        weights = weights.to(q.dtype)

        values = places + values_offset
        v = _widened(
            _load_heads(values, keys, context_len, VALUE_START, VALUE_WIDTH, HEAD_DIM), q.dtype, FP8
        )
        acc = tl.dot(weights, v, acc * kept[:, None])
        if NUM_VALUES == 2:
            v = _widened(
                _load_heads(
                    values, keys, context_len, VALUE_START + VALUE_WIDTH, VALUE_WIDTH, HEAD_DIM
                ),
                q.dtype,
                FP8,
            )
            acc2 = tl.dot(weights, v, acc2 * kept[:, None])
    return best, total, acc, acc2


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


@triton.jit
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
    VALUE_WIDTH: tl.constexpr,
    NUM_VALUES: tl.constexpr,
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
        best, total, acc, acc2 = attend_chunk(
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
            VALUE_WIDTH,
            NUM_VALUES,
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
        dims = tl.arange(0, VALUE_WIDTH)
        places = partials_ptr + lines[:, None] * HEAD_DIM + dims[None, :]
        tl.store(places, acc, mask=is_row[:, None] & (dims < HEAD_DIM)[None, :])
        if NUM_VALUES == 2:
            mask = is_row[:, None] & (VALUE_WIDTH + dims < HEAD_DIM)[None, :]
            tl.store(places + VALUE_WIDTH, acc2, mask=mask)


@triton.jit
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
    VALUE_START: tl.constexpr,
    VALUE_WIDTH: tl.constexpr,
    ROWS: tl.constexpr,
    KEYS: tl.constexpr,
    CHUNK: tl.constexpr,
    BLOCK_SIZE: tl.constexpr,
    FP8: tl.constexpr,
    HAS_CAP: tl.constexpr,
    HAS_WINDOW: tl.constexpr,
):
    """Grid: (tiles, Hkv); writes out's numbers from VALUE_START on, VALUE_WIDTH of a head's D."""
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
    acc = tl.zeros([ROWS, VALUE_WIDTH], tl.float32)
    for chunk in range(first // CHUNK, tl.cdiv(end, CHUNK)):
        chunk_best, chunk_total, chunk_acc, _ = attend_chunk(
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
            VALUE_START,
            VALUE_WIDTH,
            1,
            ROWS,
            KEYS,
            BLOCK_SIZE,
            FP8,
            HAS_CAP,
            HAS_WINDOW,
        )
        best, total, acc = merge(best, total, acc, chunk_best, chunk_total, chunk_acc)

    _, first_row, num_rows, first_token, _, _, _, _ = _tile(
        sequences_ptr, tiles_ptr, window, G, ROWS, KEYS, AGAIN=True
    )
    is_row = rows < num_rows
    tokens = first_token + (first_row + rows) // G
    heads = kv_head * G + (first_row + rows) % G
    dims = VALUE_START + tl.arange(0, VALUE_WIDTH)
    places = out_ptr + tokens.to(tl.int64)[:, None] * out_stride + heads[:, None] * HEAD_DIM + dims
    out = divided(acc, total).to(out_ptr.dtype.element_ty)
    tl.store(places, out, mask=is_row[:, None] & (dims < HEAD_DIM)[None, :])
