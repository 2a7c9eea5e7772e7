"""Quantiles of the binomial and of Student's t distribution, as far as intervals need them.

Written out so that nobody installs scipy for two numbers. Accurate to about 1e-12.

Incomplete beta by its continued fraction: Abramowitz and Stegun 26.5.8, evaluated by Lentz's way.
"""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np

_TINY = 1e-300
_DEVIATIONS = 40  # beyond so many, a binomial's weight is below the smallest float


@lru_cache(maxsize=4096)
def binomial_quantile_ranks(n: int, permille: int, confidence: float) -> tuple[int, int] | None:
    """Return the ranks (from 1) between which a quantile lies with `confidence`, equal tails.

    Of n independent values, the number below the quantile is binomial: no other assumption.
    None: n is too small to have such an interval (Hahn and Meeker, Statistical Intervals, 5.2).
    """
    if n < 1:
        return None
    tail = (1 - confidence) / 2
    first, cumulative = _binomial_cumulative(n, permille / 1000)
    # low: the largest rank with P(count <= low - 1) <= tail; no rank below `first + 1` matters.
    low = first + int(np.searchsorted(cumulative, tail, side="right"))
    # high: the smallest rank with P(count <= high - 1) >= 1 - tail.
    high = first + int(np.searchsorted(cumulative, 1 - tail, side="left")) + 1
    return (low, high) if low >= 1 and high <= n else None


def num_values_for_ranks(permille: int, confidence: float) -> int:
    """Return how many values the quantile, a median or above, needs to have such an interval."""
    assert permille >= 500, permille
    return math.ceil(math.log((1 - confidence) / 2) / math.log(permille / 1000))


def _binomial_cumulative(n: int, q: float) -> tuple[int, np.ndarray]:
    """Return a count and P(X <= k) for k from it on, until the rest weighs nothing."""
    mode = min(int((n + 1) * q), n)
    reach = int(_DEVIATIONS * math.sqrt(n * q * (1 - q))) + _DEVIATIONS
    first, last = max(mode - reach, 0), min(mode + reach, n)
    k = np.arange(first, last, dtype=np.float64)
    steps = np.log((n - k) / (k + 1) * (q / (1 - q)))  # log of P(k + 1) / P(k)
    logs = np.concatenate(([0.0], np.cumsum(steps)))
    weights = np.exp(logs - logs.max())
    return first, np.cumsum(weights) / weights.sum()


@lru_cache(maxsize=4096)
def t_quantile(probability: float, df: float) -> float:
    """Return the t below which a Student variable of `df` degrees of freedom is so often."""
    assert 0 < probability < 1, probability
    assert df > 0, df
    if probability < 0.5:
        return -t_quantile(1 - probability, df)
    high = 1.0
    while t_probability(high, df) < probability:
        high *= 2
    low = 0.0
    while (middle := (low + high) / 2) not in (low, high):
        if t_probability(middle, df) < probability:
            low = middle
        else:
            high = middle
    return high


def t_probability(t: float, df: float) -> float:
    """Return how often a Student variable of `df` degrees of freedom is at most `t`."""
    tail = _incomplete_beta(df / 2, 0.5, df / (df + t * t)) / 2
    return tail if t < 0 else 1 - tail


def _incomplete_beta(a: float, b: float, x: float) -> float:
    """Return the regularised incomplete beta function."""
    if x <= 0 or x >= 1:
        return float(x >= 1)
    scale = math.exp(
        math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b) + a * math.log(x) + b * math.log1p(-x)
    )
    if x < (a + 1) / (a + b + 2):  # where the fraction is quick
        return scale * _beta_fraction(a, b, x) / a
    return 1 - scale * _beta_fraction(b, a, 1 - x) / b


def _beta_fraction(a: float, b: float, x: float) -> float:
    d = 1 / _not_zero(1 - (a + b) * x / (a + 1))
    c, value = 1.0, d
    for m in range(1, 500):
        for term in (
            m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m)),
            -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1)),
        ):
            d = 1 / _not_zero(1 + term * d)
            c = _not_zero(1 + term / c)
            value *= c * d
        if abs(c * d - 1) < 1e-15:
            break
    return value


def _not_zero(value: float) -> float:
    return value if abs(value) > _TINY else _TINY
