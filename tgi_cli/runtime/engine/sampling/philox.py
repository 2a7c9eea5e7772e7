"""Counter-based random numbers: a pure function of a seed and a position.

The number for a token doesn't depend on what was drawn before, so a stream can be resumed,
replayed or speculated on and still give the same bytes (DESIGN decision 2).

Philox4x32-10: Salmon, Moraes, Dror, Shaw, Parallel Random Numbers: As Easy as 1, 2, 3, SC 2011.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

_MASK = 0xFFFFFFFF
_MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
_KEY_STEPS = (0x9E3779B9, 0xBB67AE85)
_ROUNDS = 10


def philox4x32(counter: tuple[int, int, int, int], key: tuple[int, int]) -> tuple[int, ...]:
    """Return four 32-bit words for a 128-bit counter and a 64-bit key."""
    c0, c1, c2, c3 = counter
    k0, k1 = key
    for _ in range(_ROUNDS):
        product0 = c0 * _MULTIPLIERS[0]
        product1 = c2 * _MULTIPLIERS[1]
        c0, c1, c2, c3 = (
            (product1 >> 32) ^ c1 ^ k0,
            product1 & _MASK,
            (product0 >> 32) ^ c3 ^ k1,
            product0 & _MASK,
        )
        k0 = (k0 + _KEY_STEPS[0]) & _MASK
        k1 = (k1 + _KEY_STEPS[1]) & _MASK
    return c0, c1, c2, c3


def uniform(seed: int, position: int) -> float:
    """Return a number in [0, 1) with 53 random bits, for the token at `position`.

    `seed` is unsigned 64 bit; positions count from 0 over prompt and output.
    """
    counter = (position & _MASK, position >> 32, 0, 0)
    high, low, _, _ = philox4x32(counter, (seed & _MASK, seed >> 32))
    return ((high << 21) | (low >> 11)) / (1 << 53)


def uniforms(seeds: Sequence[int], positions: Sequence[int]) -> NDArray[np.float64]:
    """Return `uniform` of each seed with its position, [N]: all at once."""
    seed, position = (np.array(numbers, dtype=np.uint64) for numbers in (seeds, positions))
    mask, half = np.uint64(_MASK), np.uint64(32)
    c0, c1, c2, c3 = position & mask, position >> half, np.zeros_like(seed), np.zeros_like(seed)
    k0, k1 = seed & mask, seed >> half
    first, second = (np.uint64(each) for each in _MULTIPLIERS)
    for _ in range(_ROUNDS):
        product0, product1 = c0 * first, c2 * second
        c0, c1, c2, c3 = (
            (product1 >> half) ^ c1 ^ k0,
            product1 & mask,
            (product0 >> half) ^ c3 ^ k1,
            product0 & mask,
        )
        k0, k1 = (
            (k + np.uint64(step)) & mask for k, step in zip((k0, k1), _KEY_STEPS, strict=True)
        )
    return ((c0 << np.uint64(21)) | (c1 >> np.uint64(11))).astype(np.float64) / (1 << 53)
