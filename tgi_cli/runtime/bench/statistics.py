"""Percentiles, means and slopes, each with the interval that says what it is worth.

Percentiles are nearest rank: always a value that was observed. A failure is an infinite value, so
that it can only make a percentile worse. Intervals are of 95 %. Spec: bench.md section 9.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from tgi_cli.runtime.bench.distributions import binomial_quantile_ranks, t_quantile
from tgi_cli.runtime.bench.result import Interval, Number, Summary

PERCENTILES = {"p50": 500, "p90": 900, "p95": 950, "p99": 990, "p99.9": 999}
"""In tenths of a percent, so that ranks are exact."""

CONFIDENCE = 0.95
NUM_BATCHES = 20


def number(value: float | None) -> Number:
    """Return the value as a result holds it: infinity by name, what isn't known as None."""
    if value is None or math.isnan(value):
        return None
    if math.isinf(value):
        return "inf" if value > 0 else None
    return float(value)


def real(value: Number) -> float | None:
    """Return what a result holds as a float again."""
    return math.inf if value == "inf" else value


def nearest_rank(num_values: int, permille: int) -> int:
    """Return the rank, from 1, of a percentile among so many values."""
    return max(-(-permille * num_values // 1000), 1)


def summarize(values: np.ndarray) -> Summary:
    """Summarise values in seconds; infinite ones are failures."""
    n = len(values)
    if n == 0:
        return Summary()
    ordered = np.sort(values)
    is_finite = bool(np.isfinite(ordered[-1]))
    points = {
        name: number(ordered[nearest_rank(n, permille) - 1])
        for name, permille in PERCENTILES.items()
    }
    intervals: dict[str, Interval] = {}
    for name, permille in PERCENTILES.items():
        if ranks := binomial_quantile_ranks(n, permille, CONFIDENCE):
            low, high = ranks
            intervals[name] = (number(ordered[low - 1]), number(ordered[high - 1]))
    return Summary(
        n=n,
        mean=number(ordered.mean()),
        sd=number(ordered.std(ddof=1)) if is_finite and n > 1 else None,
        min=number(ordered[0]),
        max=number(ordered[-1]),
        p50=points["p50"],
        p90=points["p90"],
        p95=points["p95"],
        p99=points["p99"],
        p999=points["p99.9"],
        ci95=intervals,
    )


def mean_interval(values: Sequence[float] | np.ndarray) -> tuple[float, float] | None:
    """Return the t interval of a mean; None: fewer than two values, or infinite ones."""
    n = len(values)
    if n < 2 or not np.all(np.isfinite(values)):
        return None
    mean = float(np.mean(values))
    half = t_quantile((1 + CONFIDENCE) / 2, n - 1) * float(np.std(values, ddof=1)) / math.sqrt(n)
    return mean - half, mean + half


def batch_means(series: Sequence[float] | np.ndarray) -> np.ndarray:
    """Return the means of 20 equal batches of a series in time; of fewer values, themselves.

    Neighbours in time depend on each other; means of long batches hardly do. What doesn't fill the
    last batch is left out.
    """
    values = np.asarray(series, dtype=np.float64)
    size = len(values) // NUM_BATCHES
    if size == 0:
        return values
    return np.asarray(values[: size * NUM_BATCHES].reshape(NUM_BATCHES, size).mean(axis=1))


def relative_half_width(series: Sequence[float] | np.ndarray) -> float | None:
    """Return half the width of the mean's interval over the mean, for `--until-ci`.

    None: fewer than 20 values, or a mean of 0.
    """
    if len(series) < NUM_BATCHES:
        return None
    interval = mean_interval(batch_means(series))
    if interval is None or interval[0] + interval[1] == 0:
        return None
    low, high = interval
    return abs((high - low) / (high + low))


def slope_interval(times: np.ndarray, values: np.ndarray) -> tuple[float, float] | None:
    """Return the interval of the slope of `values` over `times`, by least squares."""
    n = len(times)
    if n < 3 or not np.all(np.isfinite(values)):
        return None
    centred = times - times.mean()
    spread = float(centred @ centred)
    if spread == 0:
        return None
    slope = float(centred @ values) / spread
    residuals = values - values.mean() - slope * centred
    error = math.sqrt(float(residuals @ residuals) / (n - 2) / spread)
    half = t_quantile((1 + CONFIDENCE) / 2, n - 2) * error
    return slope - half, slope + half


def welch_interval(
    before: Sequence[float] | np.ndarray, after: Sequence[float] | np.ndarray
) -> tuple[float, float] | None:
    """Return the interval of mean(after) - mean(before), whose variances may differ.

    Welch, The generalization of Student's problem, Biometrika 1947. None: fewer than two of either.
    """
    if min(len(before), len(after)) < 2:
        return None
    if not (np.all(np.isfinite(before)) and np.all(np.isfinite(after))):
        return None
    difference = float(np.mean(after) - np.mean(before))
    errors = [float(np.var(values, ddof=1)) / len(values) for values in (before, after)]
    variance = sum(errors)
    if variance == 0:
        return difference, difference
    df = variance**2 / sum(
        error**2 / (len(values) - 1) for error, values in zip(errors, (before, after), strict=True)
    )
    half = t_quantile((1 + CONFIDENCE) / 2, df) * math.sqrt(variance)
    return difference - half, difference + half


def ratio_interval(
    before: Sequence[float] | np.ndarray, after: Sequence[float] | np.ndarray
) -> tuple[float, float] | None:
    """Return the interval of after / before over independent runs: Welch's, of the logarithms.

    None: fewer than two of either, or values that aren't above 0 and finite.
    """
    if len(before) == 0 or len(after) == 0 or min(np.min(before), np.min(after)) <= 0:
        return None
    interval = welch_interval(np.log(before), np.log(after))
    return None if interval is None else (math.exp(interval[0]), math.exp(interval[1]))


def mser5_cut(values: Sequence[float] | np.ndarray) -> int:
    """Return how many first values belong to the start-up, at most half of them.

    MSER-5: the cut that makes the standard error of the rest smallest, over batches of five.
    White, Cobb and Spratt, A comparison of five steady-state truncation heuristics, WSC 2000.
    """
    batch = 5
    means = np.asarray(values, dtype=np.float64)
    means = means[: len(means) // batch * batch].reshape(-1, batch).mean(axis=1)
    m = len(means)
    if m < 2:
        return 0
    # Sums over the rest, for every cut at once. Centred first: squares of large values cancel.
    means = means - means.mean()
    left = np.arange(m, 0, -1, dtype=np.float64)
    sums = np.cumsum(means[::-1])[::-1]
    squares = np.cumsum((means**2)[::-1])[::-1]
    errors = (squares - sums**2 / left) / left**2
    return int(np.argmin(errors[: m // 2 + 1])) * batch
