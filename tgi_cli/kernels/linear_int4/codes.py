"""Four-bit codes in words, from which a kernel makes weights with few instructions.

A block is 8 * W neighbouring input features of a row, W = 16 or 32, and lies in W words of 32
bits. Word i of a block holds the codes of its features i, W + i, 2 * W + i, ... 7 * W + i: so each
eighth of a block ("part", W features that follow one another) is the same four bits of all W
words, and a kernel multiplies one part of the weights with one of x, both in the order that they
have in memory. Nothing is shuffled between threads.

Two parts at a time are read from a word where four bits become a number of fp32 by one "and" and
one "or": at bit 12, 2048 + code, and at bit 16, 128 + code. A word is shifted thrice for that;
`_PLACES` says which four bits of it hold each part. The number that was added, the scale and the
offset are one multiply-add, exact up to its own rounding where scale and offset are fp16 and the
offset is a whole number of scales.
"""

from __future__ import annotations

import torch
from torch import Tensor

_PLACES = (3, 4, 5, 6, 1, 2, 7, 0)  # of part 0 to 7, in units of four bits
MASKS = (0xF << 12, 0xF << 16)


def words_of(codes: Tensor, num_words: int) -> Tensor:
    """Return uint8 codes [..., N, K] below 16 as int32 words [..., blocks, N, num_words].

    Features after the last are zeros.
    """
    codes = torch.nn.functional.pad(codes, (0, -codes.shape[-1] % (8 * num_words)))
    parts = codes.unflatten(-1, (-1, 8, num_words)).unbind(-2)  # 8 times [..., N, blocks, W]
    words = torch.zeros(parts[0].shape, dtype=torch.int32, device=codes.device)
    for place, part in zip(_PLACES, parts, strict=True):
        words |= part.int() << 4 * place
    return words.transpose(-2, -3).contiguous()


def grids_of(scales: Tensor, offsets: Tensor | None) -> Tensor:
    """Return scales and offsets [..., N, G], fp16 or fp32, as int32 [..., G, 1 or 2, N].

    Those of fp16 are pairs in one word, so that a load has the four bytes that can be read ahead;
    those of fp32 are apart.
    """
    offsets = torch.zeros_like(scales) if offsets is None else offsets
    assert scales.dtype == offsets.dtype, (scales.dtype, offsets.dtype)
    both = torch.stack((scales, offsets), -1).view(torch.int32)
    return both.movedim(-3, -1).contiguous()
