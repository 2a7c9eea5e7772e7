"""Changes of scores in Triton: `penalties/__init__.py` has the formulas and the counts.

Programs of a chunk of 4096 scores for what touches all of a row, of a row for what touches a few.
A program whose row asks for nothing ends at once. Memory bound: a row with penalties moves
(4 + 2 + 4) * V bytes, one with a bitmask (4 + 1/8 + 4) * V.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import triton
import triton.language as tl

from tgi_cli.kernels.penalties import LARGEST, MAX_COUNT
from tgi_cli.kernels.sampling.settings import WIDTH, Field

if TYPE_CHECKING:
    from torch import Tensor

_CHUNK = 4096
_BLOCK = 256  # ids of a row's bias that are added at once

_WIDTH = tl.constexpr(WIDTH)
_COUNT_ROW = tl.constexpr(int(Field.COUNT_ROW))
_MASK_ROW = tl.constexpr(int(Field.MASK_ROW))
_BIAS_START = tl.constexpr(int(Field.BIAS_START))
_BIAS_END = tl.constexpr(int(Field.BIAS_END))
_FORBIDS = tl.constexpr(int(Field.FORBIDS))
_REPETITION = tl.constexpr(int(Field.REPETITION))
_FREQUENCY = tl.constexpr(int(Field.FREQUENCY))
_PRESENCE = tl.constexpr(int(Field.PRESENCE))
_MAX_CODE = tl.constexpr(2 * MAX_COUNT)
_LARGEST = tl.constexpr(LARGEST)


@triton.jit(do_not_specialize=["num_words"])
def _change_kernel(
    logits_ptr,
    settings_ptr,
    counts_ptr,
    bitmasks_ptr,
    row_stride,
    vocab_size,
    num_words,
    CHUNK: tl.constexpr,
):
    row = tl.program_id(0).to(tl.int64)  # N * V can pass 2**31
    settings = settings_ptr + row * _WIDTH
    count_row = tl.load(settings + _COUNT_ROW).to(tl.int64)
    mask_row = tl.load(settings + _MASK_ROW).to(tl.int64)
    if (count_row < 0) & (mask_row < 0):
        return
    cols = tl.program_id(1) * CHUNK + tl.arange(0, CHUNK)
    is_inside = cols < vocab_size
    places = logits_ptr + row * row_stride + cols
    x = tl.load(places, mask=is_inside, other=0.0)
    y = x
    if count_row >= 0:
        codes = tl.load(counts_ptr + count_row * vocab_size + cols, mask=is_inside, other=0)
        times = (codes >> 1).to(tl.float32)
        penalty = tl.load(settings + _REPETITION).to(tl.float32)
        if penalty != 1.0:
            scaled = tl.where(y < 0.0, y * penalty, tl.div_rn(y, penalty))
            scaled = tl.minimum(tl.maximum(scaled, -_LARGEST), _LARGEST)
            y = tl.where(codes != 0, scaled, y)
        y -= tl.load(settings + _FREQUENCY).to(tl.float32) * times
        y -= tl.where(times > 0.0, tl.load(settings + _PRESENCE).to(tl.float32), 0.0)
    if mask_row >= 0:
        word = cols // 32  # what lies past the last word is ruled out
        words = tl.load(bitmasks_ptr + mask_row * num_words + word, mask=word < num_words, other=0)
        y = tl.where((words >> (cols % 32)) & 1 != 0, y, float("-inf"))
    # A row that isn't finite must not look finite because its bad scores are ruled out.
    tl.store(places, tl.where(x < float("inf"), y, x), mask=is_inside)


@triton.jit
def _bias_kernel(
    logits_ptr, settings_ptr, bias_ids_ptr, biases_ptr, row_stride, BLOCK: tl.constexpr
):
    row = tl.program_id(0).to(tl.int64)
    at = tl.load(settings_ptr + row * _WIDTH + _BIAS_START).to(tl.int32)
    end = tl.load(settings_ptr + row * _WIDTH + _BIAS_END).to(tl.int32)
    while at < end:
        entries = at + tl.arange(0, BLOCK)
        mask = entries < end
        ids = tl.load(bias_ids_ptr + entries, mask=mask, other=0)  # distinct
        places = logits_ptr + row * row_stride + ids
        biased = tl.load(places, mask=mask, other=0.0) + tl.load(
            biases_ptr + entries, mask=mask, other=0.0
        )
        tl.store(places, biased, mask=mask)
        at += BLOCK


@triton.jit
def _alternatives_kernel(
    logits_ptr,
    settings_ptr,
    end_ids_ptr,
    found_ptr,
    row_stride,
    vocab_size,
    num_end_ids,
    CHUNK: tl.constexpr,
):
    row = tl.program_id(0).to(tl.int64)
    if tl.load(settings_ptr + row * _WIDTH + _FORBIDS) == 0.0:
        return
    chunk = tl.program_id(1)
    cols = chunk * CHUNK + tl.arange(0, CHUNK)
    x = tl.load(logits_ptr + row * row_stride + cols, mask=cols < vocab_size, other=float("-inf"))
    is_possible = (x > float("-inf")).to(tl.int32)
    index = 0
    while index < num_end_ids:
        is_possible = tl.where(cols == tl.load(end_ids_ptr + index), 0, is_possible)
        index += 1
    tl.store(found_ptr + row * tl.num_programs(1) + chunk, tl.max(is_possible, axis=0))


@triton.jit
def _forbid_kernel(
    logits_ptr,
    settings_ptr,
    end_ids_ptr,
    found_ptr,
    row_stride,
    num_end_ids,
    num_chunks,
    CHUNKS: tl.constexpr,
):
    row = tl.program_id(0).to(tl.int64)
    if tl.load(settings_ptr + row * _WIDTH + _FORBIDS) == 0.0:
        return
    chunks = tl.arange(0, CHUNKS)  # CHUNKS is the next power of two from num_chunks up
    found = tl.load(found_ptr + row * num_chunks + chunks, mask=chunks < num_chunks, other=0)
    if tl.max(found, axis=0) == 0:
        return
    index = 0
    while index < num_end_ids:
        place = logits_ptr + row * row_stride + tl.load(end_ids_ptr + index)
        x = tl.load(place)
        tl.store(place, tl.where(x < float("inf"), float("-inf"), x))
        index += 1


@triton.jit
def _count_kernel(counts_ptr, settings_ptr, ids_ptr, vocab_size):
    row = tl.program_id(0).to(tl.int64)
    count_row = tl.load(settings_ptr + row * _WIDTH + _COUNT_ROW).to(tl.int64)
    if count_row >= 0:
        place = counts_ptr + count_row * vocab_size + tl.load(ids_ptr + row)
        code = tl.load(place).to(tl.int32)
        tl.store(place, tl.where(code < _MAX_CODE, code + 2, code).to(tl.int16))


def change_(logits: Tensor, settings: Tensor, counts: Tensor, bitmasks: Tensor) -> None:
    """Apply penalties and bitmasks to `logits` [N, V] in place.

    settings: [N, 16] float64; counts: [R, V] int16; bitmasks: [M, W] int32, the lowest bit of a
    row's first word is id 0. Rows of settings name rows of both, no two the same of counts.
    """
    num_rows, vocab_size = _shape(logits, settings)
    assert counts.shape[1] == vocab_size, counts.shape
    assert counts.is_contiguous(), counts.stride()
    assert bitmasks.is_contiguous(), bitmasks.stride()
    _change_kernel[(num_rows, triton.cdiv(vocab_size, _CHUNK))](
        logits,
        settings,
        counts,
        bitmasks,
        logits.stride(0),
        vocab_size,
        bitmasks.shape[1],
        CHUNK=_CHUNK,
        num_warps=8,
    )


def add_bias_(logits: Tensor, settings: Tensor, bias_ids: Tensor, biases: Tensor) -> None:
    """Add `biases` [B] fp32 to the ids `bias_ids` [B] int32, each row its own part of the list."""
    num_rows, _ = _shape(logits, settings)
    _bias_kernel[(num_rows,)](
        logits, settings, bias_ids, biases, logits.stride(0), BLOCK=_BLOCK, num_warps=4
    )


def forbid_(logits: Tensor, settings: Tensor, end_ids: Tensor) -> None:
    """Rule out `end_ids` [E] int32, distinct, in the rows that forbid, unless nothing is left."""
    num_rows, vocab_size = _shape(logits, settings)
    num_chunks = triton.cdiv(vocab_size, _CHUNK)
    found = torch.empty(num_rows, num_chunks, dtype=torch.int32, device=logits.device)
    _alternatives_kernel[(num_rows, num_chunks)](
        logits,
        settings,
        end_ids,
        found,
        logits.stride(0),
        vocab_size,
        len(end_ids),
        CHUNK=_CHUNK,
        num_warps=8,
    )
    _forbid_kernel[(num_rows,)](
        logits,
        settings,
        end_ids,
        found,
        logits.stride(0),
        len(end_ids),
        num_chunks,
        CHUNKS=triton.next_power_of_2(num_chunks),
        num_warps=1,
    )


def count_(counts: Tensor, settings: Tensor, ids: Tensor) -> None:
    """Count `ids` [N] int64 as of the output, each in the row of `counts` that its row names."""
    _count_kernel[(len(ids),)](counts, settings, ids, counts.shape[1], num_warps=1)


def _shape(logits: Tensor, settings: Tensor) -> tuple[int, int]:
    num_rows, vocab_size = logits.shape
    assert logits.dtype == torch.float32, logits.dtype
    assert logits.stride(1) == 1, logits.stride()
    assert settings.shape == (num_rows, WIDTH), settings.shape
    assert settings.dtype == torch.float64, settings.dtype
    return num_rows, vocab_size
