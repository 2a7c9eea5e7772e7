"""Intervals of a ratio of two results' numbers, from their repeats or from their own intervals."""

from __future__ import annotations

import math
from statistics import NormalDist

import numpy as np

from tgi_cli.runtime.bench.result import Interval, Stage
from tgi_cli.runtime.bench.stage_values import summary_of, value_of
from tgi_cli.runtime.bench.statistics import (
    CONFIDENCE,
    PERCENTILES,
    ratio_interval,
    real,
    welch_interval,
)

_MAX_LOG, _MAX_FACTOR = 200.0, 1e80  # beyond these, powers of factors are no floats


def ratio_over_runs(before: np.ndarray, after: np.ndarray) -> tuple[float, float] | None:
    """Return Welch's interval of after / before over independent runs.

    Of the logarithms where all are above 0, else of the difference over the mean before.
    """
    if np.all(np.isinf(after)) and np.all(np.isfinite(before)):
        return math.inf, math.inf
    if np.all(np.isinf(before)) and np.all(np.isfinite(after)):
        return 0.0, 0.0
    if np.all(before > 0) and np.all(after > 0):
        return ratio_interval(before, after)
    difference = welch_interval(before, after)
    if difference is None:
        return None
    low, high = difference
    mean = float(before.mean())
    if mean > 0:
        return max(1 + low / mean, 0.0), max(1 + high / mean, 0.0)
    if low == high == 0:
        return 1.0, 1.0
    return (math.inf, math.inf) if low > 0 else None


def ratio_of_intervals(a: Stage, b: Stage, name: str) -> tuple[float, float] | None:
    """Return an interval of the ratio from those that the two results hold; None: they hold none.

    The distances of the ends from the values are added as errors are, on a scale of factors.
    """
    ends = [_interval_of(stage, name) for stage in (a, b)]
    if None in ends:
        return None
    numbers = [real(value_of(stage, name)) for stage in (a, b)]
    numbers += [real(end) for pair in ends if pair is not None for end in pair]
    known = [one for one in numbers if one is not None and 0 < one < math.inf]
    if len(known) < len(numbers):
        return None
    value_a, value_b, low_a, high_a, low_b, high_b = map(math.log, known)
    ratio = value_b - value_a
    low = ratio - math.hypot(value_b - low_b, high_a - value_a)
    high = ratio + math.hypot(high_b - value_b, value_a - low_a)
    return math.exp(min(low, _MAX_LOG)), math.exp(min(high, _MAX_LOG))


def widened(interval: tuple[float, float], ratio: float, num_compared: int) -> tuple[float, float]:
    """Return a ratio's interval of 95 % made to hold for so many ratios together.

    Bonferroni's share for each, and normal tails, on a scale of factors.
    """
    normal, tail = NormalDist(), (1 - CONFIDENCE) / 2
    scale = normal.inv_cdf(1 - tail / max(num_compared, 1)) / normal.inv_cdf(1 - tail)
    low, high = interval
    if not 0 < ratio < math.inf:
        return low, high
    return (
        ratio * (low / ratio) ** scale if low < ratio else low,
        ratio * min(high / ratio, _MAX_FACTOR) ** scale if high > ratio else high,
    )


def _interval_of(stage: Stage, name: str) -> Interval | None:
    metric, _, statistic = name.partition(".")
    if statistic in PERCENTILES:
        summary = summary_of(stage, metric)
        return None if summary is None else summary.ci95.get(statistic)
    return stage.throughput.all.ci95.get(name)
