"""Attention of a tile of queries over one chunk of keys, and how chunks are put together.

    chunk:  best = max_j s_j,  total = sum_j 2**(s_j - best),  sum = sum_j 2**(s_j - best) v_j
    merged: the chunks' (best, total, sum) in ascending order;  out = sum / total
    s_j = cap(scale * q . k_j) * log2(e)

A chunk is a fixed number of keys counted from position 0, of which turns of KEYS are added one
after another: a row's bits don't depend on the other rows of its tile, nor on masked keys, which
add exact zeros. (Only a NaN among a sequence's own later values would spread to rows of its tile.)

q: [ROWS, D filled up] fp16 or bf16; keys and values of q's type or fp8; sums: a tuple of NUM_SUMS
[ROWS, SUM_WIDTH] fp32, which stand side by side.

Milakov and Gimelshein, Online normalizer calculation for softmax, arXiv:1805.02867; Dao et al.,
FlashAttention, arXiv:2205.14135.
"""

from __future__ import annotations

import triton
import triton.language as tl

from .fp8_kernel import widen


@triton.jit
def merge(best, total, sums, chunk_best, chunk_total, chunk_sums, NUM_SUMS: tl.constexpr):
    """Return (best [R], total [R], sums [R, V] each) with the next chunk added."""
    new_best = tl.maximum(best, chunk_best)
    shift = tl.where(new_best == -float("inf"), 0.0, new_best)  # nothing seen so far
    kept, added = tl.exp2(best - shift), tl.exp2(chunk_best - shift)
    new_total = total * kept + chunk_total * added
    merged = sums[:0]
    for i in tl.static_range(NUM_SUMS):
        merged = merged + (sums[i] * kept[:, None] + chunk_sums[i] * added[:, None],)  # noqa: RUF005
    return new_best, new_total, merged


@triton.jit
def zeros(ROWS: tl.constexpr, WIDTH: tl.constexpr, NUM_SUMS: tl.constexpr):
    return (tl.zeros([ROWS, WIDTH], tl.float32),) * NUM_SUMS


@triton.jit
def divided(x, total):
    """Return x / total, or zeros for a row that saw no key."""
    return x / tl.where(total == 0.0, 1.0, total)[:, None]


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
    if KEYS < BLOCK_SIZE:
        return cache_ptr + block * block_stride + (start % BLOCK_SIZE + keys) * HEAD_DIM
    elif KEYS == BLOCK_SIZE:
        return cache_ptr + block * block_stride + keys * HEAD_DIM
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
    SUM_START: tl.constexpr,
    SUM_WIDTH: tl.constexpr,
    NUM_SUMS: tl.constexpr,
    ROWS: tl.constexpr,
    KEYS: tl.constexpr,
    BLOCK_SIZE: tl.constexpr,
    FP8: tl.constexpr,
    HAS_CAP: tl.constexpr,
    HAS_WINDOW: tl.constexpr,
):
    """Return best, total and sums, from number SUM_START on, over keys `first:end` of one chunk."""
    HEAD_PAD: tl.constexpr = q.shape[1]
    best = tl.full([ROWS], -float("inf"), tl.float32)
    total = tl.zeros([ROWS], tl.float32)
    sums = zeros(ROWS, SUM_WIDTH, NUM_SUMS)
    for start in tl.range(first, end, KEYS):
        keys = start + tl.arange(0, KEYS)
        places = _places(
            cache_ptr, table_ptr, block_stride, start, context_len, KEYS, BLOCK_SIZE, HEAD_DIM
        )

        k = _widened(_load_heads(places, keys, context_len, 0, HEAD_PAD, HEAD_DIM), q.dtype, FP8)
        scores = tl.dot(q, tl.trans(k)) * score_scale
        if HAS_CAP:  # cap is in units of log2, too; tanh(x) is 2 * sigmoid(2 * x) - 1
            scores = cap * (2.0 * tl.sigmoid(scores) - 1.0)
        if HAS_WINDOW:  # a later key's distance is negative, and so huge without a sign
            distances = (positions[:, None] - keys[None, :]).to(tl.uint32)
            is_seen = distances < window.to(tl.uint32)
        else:
            is_seen = keys[None, :] <= positions[:, None]
        scores = tl.where(is_seen, scores, -float("inf"))

        new_best = tl.maximum(best, tl.max(scores, 1))
        shift = tl.where(new_best == -float("inf"), 0.0, new_best)
        weights = tl.exp2(scores - shift[:, None])
        kept = tl.exp2(best - shift)
        total = total * kept + tl.sum(weights, 1)
        best = new_best
        weights = weights.to(q.dtype)

        added = sums[:0]
        for i in tl.static_range(NUM_SUMS):
            v = _load_heads(
                places + values_offset,
                keys,
                context_len,
                SUM_START + i * SUM_WIDTH,
                SUM_WIDTH,
                HEAD_DIM,
            )
            v = _widened(v, q.dtype, FP8)
            added = added + (tl.dot(weights, v, sums[i] * kept[:, None]),)  # noqa: RUF005
        sums = added
    return best, total, sums
