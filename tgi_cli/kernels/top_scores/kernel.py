"""The best scores of each row in Triton: `top_scores/__init__.py` says which.

Once the passes of `kernels.score_cuts` have found the rank of the n-th, a program for each chunk of
4096 scores counts what lies above it and at it, and another writes them, each to its place by the
counts of the chunks before. Bound by memory: two more reads of 4 * N * V bytes, where rows ask.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from tgi_cli.kernels.sampling.settings import WIDTH, Field
from tgi_cli.kernels.score_cuts.kernel import (
    CHUNK,
    Rows,
    cut_,
    is_wanted,
    load_scores,
    rank_of,
)
from tgi_cli.kernels.top_scores import MAX_TIES

_WIDTH = tl.constexpr(WIDTH)
_TOP_N = tl.constexpr(int(Field.TOP_N))


@triton.jit
def _count_kernel(
    logits_ptr,
    settings_ptr,
    best_ids_ptr,
    best_logprobs_ptr,
    limits_ptr,
    counts_ptr,
    row_stride,
    vocab_size,
    CHUNK: tl.constexpr,
):
    row, chunk = tl.program_id(0).to(tl.int64), tl.program_id(1)
    if is_wanted(settings_ptr, best_logprobs_ptr, row, _TOP_N):
        cols = chunk * CHUNK + tl.arange(0, CHUNK)
        y = load_scores(logits_ptr, settings_ptr, best_ids_ptr, row, row_stride, cols, vocab_size)
        rank, limit = rank_of(y), tl.load(limits_ptr + row)
        is_possible = y > float("-inf")
        out = counts_ptr + (row * tl.num_programs(1) + chunk) * 2
        tl.store(out, tl.sum((is_possible & (rank < limit)).to(tl.int32), axis=0))
        tl.store(out + 1, tl.sum((is_possible & (rank == limit)).to(tl.int32), axis=0))


@triton.jit(do_not_specialize=["num_places"])
def _write_kernel(
    logits_ptr,
    settings_ptr,
    best_ids_ptr,
    best_logprobs_ptr,
    limits_ptr,
    counts_ptr,
    ids_ptr,
    scores_ptr,
    row_stride,
    vocab_size,
    num_chunks,
    num_places,
    max_ties,
    CHUNK: tl.constexpr,
    CHUNKS: tl.constexpr,
):
    row, chunk = tl.program_id(0).to(tl.int64), tl.program_id(1)
    if is_wanted(settings_ptr, best_logprobs_ptr, row, _TOP_N):
        chunks = tl.arange(0, CHUNKS)  # CHUNKS is the next power of two from num_chunks up
        at = (row * num_chunks + chunks) * 2
        mask = chunks < num_chunks
        above = tl.load(counts_ptr + at, mask=mask, other=0)
        ties = tl.load(counts_ptr + at + 1, mask=mask, other=0)
        above_before = tl.sum(tl.where(chunks < chunk, above, 0), axis=0)
        # The ties lie behind all that are above them.
        ties_before = tl.sum(tl.where(chunks < chunk, ties, above), axis=0)
        ties_before += tl.sum(tl.where(chunks < chunk, above, 0), axis=0)

        cols = chunk * CHUNK + tl.arange(0, CHUNK)
        y = load_scores(logits_ptr, settings_ptr, best_ids_ptr, row, row_stride, cols, vocab_size)
        rank, limit = rank_of(y), tl.load(limits_ptr + row)
        is_possible = y > float("-inf")
        is_above = is_possible & (rank < limit)
        is_tie = is_possible & (rank == limit)
        above_at = above_before + tl.cumsum(is_above.to(tl.int32), axis=0)
        ties_at = ties_before + tl.cumsum(is_tie.to(tl.int32), axis=0)
        place = tl.where(is_above, above_at, ties_at) - 1
        wanted = tl.load(settings_ptr + row * _WIDTH + _TOP_N).to(tl.int32) + max_ties
        is_written = (is_above | is_tie) & (place < wanted)
        out = row * num_places + place
        tl.store(ids_ptr + out, cols, mask=is_written)
        tl.store(scores_ptr + out, y, mask=is_written)


def best_scores(limits: Tensor, rows: Rows, max_n: int) -> tuple[Tensor, Tensor]:
    """Return ids [N, max_n + MAX_TIES] int32 and scores of the best of each row up to its limit.

    limits: [N] int32, ranks. Past a row's last one ids are -1. Scores are counted from the highest
    and divided by the temperature in rows that sample; in others they are as they were.
    """
    num_rows, vocab_size = rows.logits.shape
    num_chunks, device = rows.num_chunks, rows.logits.device
    num_places = max_n + MAX_TIES
    lowest = limits.clone()
    cut_(lowest, rows, Field.TOP_N)
    counts = torch.empty(num_rows, num_chunks, 2, dtype=torch.int32, device=device)
    ids = torch.full((num_rows, num_places), -1, dtype=torch.int32, device=device)
    scores = torch.empty(num_rows, num_places, device=device)
    inputs = (rows.logits, rows.settings, rows.best_ids, rows.best_logprobs, lowest, counts)
    row_stride = rows.logits.stride(0)
    _count_kernel[(num_rows, num_chunks)](*inputs, row_stride, vocab_size, CHUNK=CHUNK, num_warps=8)
    _write_kernel[(num_rows, num_chunks)](
        *inputs,
        ids,
        scores,
        row_stride,
        vocab_size,
        num_chunks,
        num_places,
        MAX_TIES,
        CHUNK=CHUNK,
        CHUNKS=triton.next_power_of_2(num_chunks),
        num_warps=8,
    )
    return ids, scores
