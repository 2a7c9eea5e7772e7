"""The watermark: which tokens are on the green list, and whether a text favours them.

Sampling with a watermark adds `delta` to the scores of the green tokens, about a share `gamma` of
the vocabulary; which they are depends on the token before. Who knows the rule counts them: a text
of T tokens that knows nothing of it has gamma * T green ones, give or take.

    z = (green - gamma * T) / sqrt(T * gamma * (1 - gamma))

The list after the token p is drawn by SplitMix64 from the seed 15485863 * p: token i is green if
the generator's number i + 1, over 2**64, is less than gamma. So membership is a function of two
ids, one token can be looked up alone, and no neighbour in a batch has a say.

Kirchenbauer et al., A Watermark for Large Language Models, arXiv:2301.10226. SplitMix64: Steele,
Lea, Flood, Fast Splittable Pseudorandom Number Generators, OOPSLA 2014.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

_SEED_FACTOR = 15485863
_INCREMENT = np.uint64(0x9E3779B97F4A7C15)
_FACTORS = (np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB))
_SHIFTS = (np.uint64(30), np.uint64(27), np.uint64(31))


def green(
    previous_ids: npt.NDArray[Any], token_ids: npt.NDArray[Any], gamma: float
) -> npt.NDArray[np.bool_]:
    """Return whether each of `token_ids` is green after its one of `previous_ids` (or the only)."""
    seeds = previous_ids.astype(np.uint64) * np.uint64(_SEED_FACTOR)
    z = seeds + (token_ids.astype(np.uint64) + np.uint64(1)) * _INCREMENT
    z = (z ^ (z >> _SHIFTS[0])) * _FACTORS[0]
    z = (z ^ (z >> _SHIFTS[1])) * _FACTORS[1]
    z ^= z >> _SHIFTS[2]
    # 53 bits are what a double holds.
    is_green: npt.NDArray[np.bool_] = (z >> np.uint64(11)) < np.uint64(math.ceil(gamma * 2**53))
    return is_green


@dataclass(frozen=True, slots=True)
class Detection:
    num_scored: int  # distinct pairs of a token and the one before
    num_green: int
    z_score: float
    p_value: float  # how often a text without the watermark scores as high


def detect(token_ids: Sequence[int], gamma: float = 0.5) -> Detection:
    """Judge a text by its ids; `gamma` (0 < gamma < 1) is what it would have been made with.

    The first token is only the other's context: put the prompt's last before the text to score
    all of it. A pair that comes again says nothing new, so each counts once.
    """
    pairs = np.array(sorted(set(pairwise(token_ids))), dtype=np.uint64)
    if not len(pairs):
        return Detection(0, 0, 0.0, 1.0)
    num_scored = len(pairs)
    num_green = int(green(pairs[:, 0], pairs[:, 1], gamma).sum())
    z_score = (num_green - gamma * num_scored) / math.sqrt(num_scored * gamma * (1 - gamma))
    return Detection(num_scored, num_green, z_score, math.erfc(z_score / math.sqrt(2)) / 2)
