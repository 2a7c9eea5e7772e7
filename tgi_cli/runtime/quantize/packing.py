"""Small integers side by side in 32-bit words.

Value i of a column takes bits `bits * i` to `bits * i + bits - 1` of its words, read as one long
little-endian number; values of 3 bits cross from one word into the next, others never do.
The way back is `layers/quantization/bit_stream.py`.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

WORD_BITS = 32


def values_per_block(bits: int) -> int:
    """Return the fewest values of `bits` that fill whole words."""
    return WORD_BITS // math.gcd(bits, WORD_BITS)


def pack(values: Tensor, bits: int) -> Tensor:
    """Return int32 words [R * bits / 32, C] of `values` [R, C], each below 2 ** bits.

    R is a multiple of `values_per_block(bits)`.
    """
    num_rows, num_columns = values.shape
    per_block = values_per_block(bits)
    assert num_rows % per_block == 0, (num_rows, per_block)
    blocks = values.view(-1, per_block, num_columns)
    words = torch.zeros(len(blocks), per_block * bits // WORD_BITS, num_columns, dtype=torch.int64)
    for index in range(per_block):
        word, shift = divmod(bits * index, WORD_BITS)
        value = blocks[:, index].long()
        words[:, word] |= (value << shift) & 0xFFFFFFFF
        if shift + bits > WORD_BITS:
            words[:, word + 1] |= value >> (WORD_BITS - shift)
    signed = torch.where(words >= 1 << 31, words - (1 << 32), words)
    return signed.to(torch.int32).view(-1, num_columns)
