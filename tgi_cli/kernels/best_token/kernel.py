"""The likeliest token of each row in Triton: `best_token/__init__.py` has the formula.

logits: [N, V] fp32, rows may be apart; id: [N] int64; logprob: [N] fp32. V is cut into chunks of
4096 columns, whatever N is: a row of one sequence still keeps many multiprocessors busy. A program
finds a chunk's highest score, its first place and the sum of exp(x - highest); a second kernel
combines a row's chunks. All in fixed trees, so a row's bits depend on the row alone. Memory bound:
reads 4 * N * V bytes once.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import triton
import triton.language as tl

if TYPE_CHECKING:
    from torch import Tensor

_CHUNK = 4096


@triton.jit
def _chunk_kernel(
    logits_ptr, highest_ptr, sum_ptr, place_ptr, row_stride, num_columns, CHUNK: tl.constexpr
):
    row, chunk = tl.program_id(0).to(tl.int64), tl.program_id(1)  # N * V can pass 2**31
    cols = chunk * CHUNK + tl.arange(0, CHUNK)
    mask = cols < num_columns
    x = tl.load(logits_ptr + row * row_stride + cols, mask=mask, other=float("-inf"))
    is_number = x < float("inf")  # neither NaN nor plus infinity
    highest = tl.max(tl.where(is_number, x, float("-inf")), axis=0)
    place = tl.min(tl.where(is_number & (x == highest) & mask, cols, num_columns), axis=0)
    # A chunk of minus infinities has no mass; anything else that isn't a number spoils the sum.
    base = tl.where(highest == float("-inf"), 0.0, highest)
    mass = tl.sum(tl.where(is_number, tl.exp(x - base), float("nan")), axis=0)
    out = row * tl.num_programs(1) + chunk
    tl.store(highest_ptr + out, highest)
    tl.store(sum_ptr + out, mass)
    tl.store(place_ptr + out, place)


@triton.jit
def _combine_kernel(
    highest_ptr,
    sum_ptr,
    place_ptr,
    id_ptr,
    logprob_ptr,
    num_chunks,
    num_columns,
    BLOCK: tl.constexpr,
):
    row = tl.program_id(0).to(tl.int64)
    chunks = tl.arange(0, BLOCK)  # BLOCK is the next power of two from num_chunks up
    mask = chunks < num_chunks
    at = row * num_chunks + chunks
    highest = tl.load(highest_ptr + at, mask=mask, other=float("-inf"))
    masses = tl.load(sum_ptr + at, mask=mask, other=0.0)
    places = tl.load(place_ptr + at, mask=mask, other=num_columns)
    best = tl.max(highest, axis=0)
    place = tl.min(tl.where(highest == best, places, num_columns), axis=0)
    # A chunk of minus infinities counts nothing; a row of them has no likeliest token: NaN.
    is_possible = best > float("-inf")
    total = tl.sum(masses * tl.exp(highest - tl.where(is_possible, best, 0.0)), axis=0)
    # An id outside the vocabulary must never leave: it would be the next step's input.
    tl.store(id_ptr + row, tl.where(place < num_columns, place, 0).to(tl.int64))
    tl.store(logprob_ptr + row, -tl.log(tl.where(is_possible, total, float("nan"))))


def best_token(logits: Tensor) -> tuple[Tensor, Tensor]:
    """Return ids [N] and log-probabilities [N] of `logits` [N, V]."""
    num_rows, num_columns = logits.shape
    assert logits.dtype == torch.float32, logits.dtype
    assert logits.stride(1) == 1, logits.stride()
    device = logits.device
    ids = torch.empty(num_rows, dtype=torch.int64, device=device)
    logprobs = torch.empty(num_rows, device=device)
    if not num_rows:
        return ids, logprobs
    num_chunks = triton.cdiv(num_columns, _CHUNK)
    highest, masses = (torch.empty(num_rows, num_chunks, device=device) for _ in range(2))
    places = torch.empty(num_rows, num_chunks, dtype=torch.int32, device=device)
    _chunk_kernel[(num_rows, num_chunks)](
        logits,
        highest,
        masses,
        places,
        logits.stride(0),
        num_columns,
        CHUNK=_CHUNK,
        num_warps=8,
    )
    _combine_kernel[(num_rows,)](
        highest,
        masses,
        places,
        ids,
        logprobs,
        num_chunks,
        num_columns,
        BLOCK=triton.next_power_of_2(num_chunks),
        num_warps=1,
    )
    return ids, logprobs
