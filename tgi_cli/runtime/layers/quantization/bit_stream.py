"""Codes of 2, 3, 4 or 8 bits in 32-bit words, the lowest bits first.

Where the number of bits divides 32 each word holds whole codes; three bits run on through three
words, in which 32 codes lie.
"""

from __future__ import annotations

import torch
from torch import Tensor

WORD_BITS = 32


def unpack(words: Tensor, bits: int) -> Tensor:
    """Return the codes [..., num_words * 32 / bits] uint8 of `words` [..., num_words] int32."""
    words_per_run = bits if WORD_BITS % bits else 1
    runs = words.to(torch.int64).bitwise_and_(0xFFFFFFFF)
    runs = runs.unflatten(-1, (-1, words_per_run))  # [..., runs, words_per_run]
    codes = []
    for begin in range(0, WORD_BITS * words_per_run, bits):
        word, shift = divmod(begin, WORD_BITS)
        code = runs[..., word] >> shift
        if shift + bits > WORD_BITS:
            code = code | runs[..., word + 1] << (WORD_BITS - shift)
        codes.append((code & (1 << bits) - 1).to(torch.uint8))
    return torch.stack(codes, dim=-1).flatten(-2)
