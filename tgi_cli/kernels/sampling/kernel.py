"""Draws in Triton: `sampling/__init__.py` says what is computed.

logits: [N, V] fp32, rows may be apart. A program for each chunk of 4096 scores sums what is left of
it; a program for each row finds the chunk that the uniform number falls into, and the token in it.
A program whose row takes the best token ends at once. Reads 4 * N * V bytes, and a chunk of each
row again: bound by memory.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import triton
import triton.language as tl

from tgi_cli.kernels.sampling.settings import WIDTH, Field
from tgi_cli.kernels.score_cuts.kernel import CHUNK, Rows, is_wanted, load_scores, rank_of

if TYPE_CHECKING:
    from torch import Tensor

_WIDTH = tl.constexpr(WIDTH)
_SAMPLES = tl.constexpr(int(Field.SAMPLES))
_UNIFORM = tl.constexpr(int(Field.UNIFORM))


@triton.jit
def _mass_kernel(
    logits_ptr,
    settings_ptr,
    best_ids_ptr,
    best_logprobs_ptr,
    limits_ptr,
    masses_ptr,
    row_stride,
    vocab_size,
    CHUNK: tl.constexpr,
):
    row, chunk = tl.program_id(0).to(tl.int64), tl.program_id(1)
    if not is_wanted(settings_ptr, best_logprobs_ptr, row, _SAMPLES):
        return
    cols = chunk * CHUNK + tl.arange(0, CHUNK)
    y = load_scores(logits_ptr, settings_ptr, best_ids_ptr, row, row_stride, cols, vocab_size)
    is_kept = rank_of(y) <= tl.load(limits_ptr + row)
    weights = tl.where(is_kept, tl.exp(y), 0.0).to(tl.float64)
    tl.store(masses_ptr + row * tl.num_programs(1) + chunk, tl.sum(weights, axis=0))


@triton.jit
def _draw_kernel(
    logits_ptr,
    settings_ptr,
    best_ids_ptr,
    best_logprobs_ptr,
    limits_ptr,
    masses_ptr,
    ids_ptr,
    logprobs_ptr,
    highest_logprobs_ptr,
    row_stride,
    vocab_size,
    num_chunks,
    CHUNK: tl.constexpr,
    CHUNKS: tl.constexpr,
):
    row = tl.program_id(0).to(tl.int64)
    if not is_wanted(settings_ptr, best_logprobs_ptr, row, _SAMPLES):
        return
    chunks = tl.arange(0, CHUNKS)
    masses = tl.load(masses_ptr + row * num_chunks + chunks, mask=chunks < num_chunks, other=0.0)
    total = tl.sum(masses, axis=0)
    target = tl.load(settings_ptr + row * _WIDTH + _UNIFORM) * total
    mass = tl.cumsum(masses, axis=0)
    # The first chunk that passes the target; if rounding leads past all, the last with any mass.
    last = tl.max(tl.where(masses > 0.0, chunks, 0), axis=0)
    chunk = tl.min(tl.where((mass > target) & (masses > 0.0), chunks, last), axis=0)
    before = tl.sum(tl.where(chunks == chunk - 1, mass, 0.0), axis=0)

    cols = chunk * CHUNK + tl.arange(0, CHUNK)
    y = load_scores(logits_ptr, settings_ptr, best_ids_ptr, row, row_stride, cols, vocab_size)
    is_kept = rank_of(y) <= tl.load(limits_ptr + row)
    weights = tl.where(is_kept, tl.exp(y), 0.0).to(tl.float64)
    mass_at = before + tl.cumsum(weights, axis=0)
    last_id = tl.max(tl.where(weights > 0.0, cols, 0), axis=0)
    token_id = tl.min(tl.where((mass_at > target) & (weights > 0.0), cols, last_id), axis=0)
    score = tl.sum(tl.where(cols == token_id, y, 0.0), axis=0)
    highest_logprob = -tl.log(total.to(tl.float32))
    tl.store(ids_ptr + row, token_id.to(tl.int64))
    tl.store(logprobs_ptr + row, score + highest_logprob)
    tl.store(highest_logprobs_ptr + row, highest_logprob)


def draw_(limits: Tensor, rows: Rows, ids: Tensor, logprobs: Tensor, highest: Tensor) -> None:
    """Draw a token of each row that samples, of those up to its limit.

    Written for these rows alone: ids [N] int64, their log-probabilities [N] fp32, and the highest
    log-probability [N] fp32 that any token of the row has.
    """
    num_rows, vocab_size = rows.logits.shape
    num_chunks = rows.num_chunks
    masses = torch.empty(num_rows, num_chunks, dtype=torch.float64, device=limits.device)
    inputs = (rows.logits, rows.settings, rows.best_ids, rows.best_logprobs, limits, masses)
    _mass_kernel[(num_rows, num_chunks)](
        *inputs, rows.logits.stride(0), vocab_size, CHUNK=CHUNK, num_warps=8
    )
    _draw_kernel[(num_rows,)](
        *inputs,
        ids,
        logprobs,
        highest,
        rows.logits.stride(0),
        vocab_size,
        num_chunks,
        CHUNK=CHUNK,
        CHUNKS=triton.next_power_of_2(num_chunks),
        num_warps=8,
    )
