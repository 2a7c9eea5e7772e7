"""Where the scores of a row are cut, in Triton: `score_cuts/__init__.py` says how.

logits: [N, V] fp32, rows may be apart. Each pass has a program for each chunk of 4096 scores, which
first sums what the programs of the pass before found; so passes need no kernel between them. A
program whose row doesn't ask for the pass ends at once. A pass reads 4 * N * V bytes, from the
second-level cache where the scores fit it, and takes about 120 instructions a score, which bound it
(by count: 8 passes over 64 x 128256 are 270 us of H100's issue, 80 us of its memory).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
import triton
import triton.language as tl

from tgi_cli.kernels.sampling.settings import WIDTH, Field

if TYPE_CHECKING:
    from torch import Tensor

CHUNK = 4096
MAX_RANK = (1 << 31) - 1
_PASSES, _PIVOTS = 8, 16  # 4 bits of a rank each; the last of the 16 sums is the total

_WIDTH = tl.constexpr(WIDTH)
_SAMPLES = tl.constexpr(int(Field.SAMPLES))
_TEMPERATURE = tl.constexpr(int(Field.TEMPERATURE))
_TOP_K = tl.constexpr(int(Field.TOP_K))
_TOP_P = tl.constexpr(int(Field.TOP_P))
_TOP_N = tl.constexpr(int(Field.TOP_N))
_LOG_MIN_P = tl.constexpr(int(Field.LOG_MIN_P))
_BELOW_ALL = tl.constexpr(-(1 << 31) - 1)


@dataclass(frozen=True, slots=True)
class Rows:
    """Scores with what is known of each row and asked for it."""

    logits: Tensor  # [N, V] fp32
    settings: Tensor  # [N, 16] float64, of `settings.Field`
    best_ids: Tensor  # [N] int64
    best_logprobs: Tensor  # [N] fp32; NaN: the row isn't finite, and nothing is computed of it

    @property
    def num_chunks(self) -> int:
        return int(triton.cdiv(self.logits.shape[1], CHUNK))


@triton.jit
def is_wanted(settings_ptr, best_logprobs_ptr, row, FIELD: tl.constexpr):
    """Whether a row is finite and asks for what `FIELD` counts or bounds."""
    value = tl.load(settings_ptr + row * _WIDTH + FIELD)
    asks = value < 1.0 if FIELD == _TOP_P else value > 0.0
    if FIELD != _TOP_N:  # greedy rows aren't cut
        asks = asks & (tl.load(settings_ptr + row * _WIDTH + _SAMPLES) > 0.0)
    logprob = tl.load(best_logprobs_ptr + row)
    return asks & (logprob == logprob)


@triton.jit
def load_scores(logits_ptr, settings_ptr, best_ids_ptr, row, row_stride, cols, vocab_size):
    """Return a row's scores at `cols`: from its highest down over the temperature, or as they are.

    Past the end they are minus infinity.
    """
    x = tl.load(logits_ptr + row * row_stride + cols, mask=cols < vocab_size, other=float("-inf"))
    samples = tl.load(settings_ptr + row * _WIDTH + _SAMPLES) > 0.0
    temperature = tl.load(settings_ptr + row * _WIDTH + _TEMPERATURE).to(tl.float32)
    highest = tl.load(logits_ptr + row * row_stride + tl.load(best_ids_ptr + row))
    return tl.where(samples, tl.div_rn(x - highest, temperature), x)


@triton.jit
def rank_of(y):
    """Return int32 that ascend as the scores `y` fall, equal for equal scores."""
    y = tl.where(y == 0.0, 0.0, y)  # minus zero is zero
    bits = y.to(tl.int32, bitcast=True)
    return ~(bits ^ ((bits >> 31) & 0x7FFFFFFF))


@triton.jit
def _needed(settings_ptr, row, total, FIELD: tl.constexpr):
    value = tl.load(settings_ptr + row * _WIDTH + FIELD).to(tl.float32)
    return value * total if FIELD == _TOP_P else value


@triton.jit
def _next_low(
    lows_ptr,
    sums_ptr,
    settings_ptr,
    row,
    num_chunks,
    step,
    index,
    FIELD: tl.constexpr,
    CHUNKS: tl.constexpr,
    PASSES: tl.constexpr,
    PIVOTS: tl.constexpr,
):
    """Return the rank below which a pass has shown that too little lies.

    lows: [N, PASSES] int64; sums: [N, chunks, PIVOTS] fp32; `index` is that pass.
    """
    chunks, slots = tl.arange(0, CHUNKS), tl.arange(0, PIVOTS)
    at = (row * num_chunks + chunks)[:, None] * PIVOTS + slots[None, :]
    sums = tl.load(sums_ptr + at, mask=(chunks < num_chunks)[:, None], other=0.0)
    sums = tl.sum(sums, axis=0)
    is_last = slots == PIVOTS - 1
    total = tl.sum(tl.where(is_last, sums, 0.0), axis=0)
    is_short = (sums < _needed(settings_ptr, row, total, FIELD)) & (slots < PIVOTS - 1)
    num_short = tl.sum(is_short.to(tl.int64), axis=0)
    return tl.load(lows_ptr + row * PASSES + index) + num_short * step


@triton.jit(do_not_specialize=["shift", "index"])
def _search_kernel(
    logits_ptr,
    settings_ptr,
    best_ids_ptr,
    best_logprobs_ptr,
    limits_ptr,
    lows_ptr,
    sums_before_ptr,
    sums_ptr,
    row_stride,
    vocab_size,
    shift,
    index,
    FIELD: tl.constexpr,
    CHUNK: tl.constexpr,
    CHUNKS: tl.constexpr,
    PASSES: tl.constexpr,
    PIVOTS: tl.constexpr,
):
    row, chunk = tl.program_id(0).to(tl.int64), tl.program_id(1)  # N * V can pass 2**31
    if not is_wanted(settings_ptr, best_logprobs_ptr, row, FIELD):
        return
    num_chunks = tl.num_programs(1)
    step = tl.full((), 1, tl.int64) << shift
    low = tl.full((), _BELOW_ALL, tl.int64)
    if index > 0:
        low = _next_low(
            lows_ptr,
            sums_before_ptr,
            settings_ptr,
            row,
            num_chunks,
            step << 4,
            index - 1,
            FIELD,
            CHUNKS,
            PASSES,
            PIVOTS,
        )
    if chunk == 0:
        tl.store(lows_ptr + row * PASSES + index, low)

    cols = chunk * CHUNK + tl.arange(0, CHUNK)
    y = load_scores(logits_ptr, settings_ptr, best_ids_ptr, row, row_stride, cols, vocab_size)
    rank = rank_of(y)
    counts = (cols < vocab_size) & (rank <= tl.load(limits_ptr + row))
    weights = counts.to(tl.float32)  # sums of up to 2**24 are exact
    if FIELD == _TOP_P:
        weights = tl.where(counts, tl.exp(y), 0.0)
    out = sums_ptr + (row * num_chunks + chunk) * PIVOTS
    for slot in tl.static_range(PIVOTS - 1):
        pivot = (low + (slot + 1) * step).to(tl.int32)
        tl.store(out + slot, tl.sum(tl.where(rank <= pivot, weights, 0.0), axis=0))
    tl.store(out + PIVOTS - 1, tl.sum(weights, axis=0))


@triton.jit
def _limit_kernel(
    limits_ptr,
    lows_ptr,
    sums_ptr,
    settings_ptr,
    best_logprobs_ptr,
    num_chunks,
    FIELD: tl.constexpr,
    CHUNKS: tl.constexpr,
    PASSES: tl.constexpr,
    PIVOTS: tl.constexpr,
):
    row = tl.program_id(0).to(tl.int64)
    limit = tl.load(limits_ptr + row)
    if is_wanted(settings_ptr, best_logprobs_ptr, row, FIELD):
        step = tl.full((), 1, tl.int64)
        low = _next_low(
            lows_ptr,
            sums_ptr,
            settings_ptr,
            row,
            num_chunks,
            step,
            PASSES - 1,
            FIELD,
            CHUNKS,
            PASSES,
            PIVOTS,
        )
        limit = tl.minimum(limit, (low + 1).to(tl.int32))
    if FIELD == _TOP_P:  # the last of the cuts but for this one
        lowest = tl.load(settings_ptr + row * _WIDTH + _LOG_MIN_P).to(tl.float32)
        limit = tl.minimum(limit, rank_of(lowest))
    tl.store(limits_ptr + row, limit)


def no_limits(rows: Rows) -> Tensor:
    """Return the ranks [N] int32 up to which tokens may be picked: all."""
    return torch.full((len(rows.logits),), MAX_RANK, dtype=torch.int32, device=rows.logits.device)


def cut_(limits: Tensor, rows: Rows, field: Field) -> None:
    """Lower `limits` [N] to where TOP_K or TOP_N tokens are reached, or TOP_P of the mass.

    With TOP_P goes min-p. A row that doesn't ask keeps its limit.
    """
    num_rows, vocab_size = rows.logits.shape
    num_chunks, device = rows.num_chunks, rows.logits.device
    sizes = {
        "FIELD": int(field),
        "CHUNKS": triton.next_power_of_2(num_chunks),
        "PASSES": _PASSES,
        "PIVOTS": _PIVOTS,
    }
    lows = torch.empty(num_rows, _PASSES, dtype=torch.int64, device=device)
    before, sums = (torch.empty(num_rows, num_chunks, _PIVOTS, device=device) for _ in range(2))
    for index in range(_PASSES):
        before, sums = sums, before
        _search_kernel[(num_rows, num_chunks)](
            rows.logits,
            rows.settings,
            rows.best_ids,
            rows.best_logprobs,
            limits,
            lows,
            before,
            sums,
            rows.logits.stride(0),
            vocab_size,
            4 * (_PASSES - 1 - index),
            index,
            CHUNK=CHUNK,
            num_warps=8,
            **sizes,
        )
    _limit_kernel[(num_rows,)](
        limits,
        lows,
        sums,
        rows.settings,
        rows.best_logprobs,
        num_chunks,
        num_warps=4,
        **sizes,
    )


def scores_at(limits: Tensor) -> Tensor:
    """Return the lowest score [N] fp32 that each of `limits` [N] lets pass, for tests."""
    bits = limits.clamp(max=0x7F800000).bitwise_not()  # from minus infinity up
    return torch.where(bits < 0, bits ^ MAX_RANK, bits).view(torch.float32)
