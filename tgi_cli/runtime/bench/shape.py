"""How a population lies, small enough for `result.json` and enough to draw it."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Sequence

from tgi_cli.runtime.bench.result import Distribution, Number

NUM_BINS = 60
_STEPS = (1.0, 2.0, 5.0)
_QUANTILES = (
    *(0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.75, 0.8, 0.85, 0.9, 0.925, 0.95, 0.96, 0.97, 0.98),
    *(0.985, 0.99, 0.9925, 0.995, 0.9975, 0.999, 0.9995, 0.9999, 0.99999, 1.0),
)


def distribution_of(values: Sequence[float]) -> Distribution:
    """Return the distribution of positive values; infinite ones are failures."""
    ordered = sorted(values)
    finite = [value for value in ordered if math.isfinite(value)]
    num_infinite = len(ordered) - len(finite)
    if not ordered:
        return Distribution()
    quantiles = [(q, _nearest_rank(ordered, q)) for q in _QUANTILES if _is_told(q, len(ordered))]
    positive = [value for value in finite if value > 0]
    if not positive:
        return Distribution(num_infinite=num_infinite, quantiles=quantiles)
    low, high = _round_down(positive[0]), _round_up(positive[-1])
    edges = [low * (high / low) ** (i / NUM_BINS) for i in range(NUM_BINS + 1)]
    counts = [0] * NUM_BINS
    for value in finite:
        counts[min(max(bisect_right(edges, value) - 1, 0), NUM_BINS - 1)] += 1
    return Distribution(edges=edges, counts=counts, num_infinite=num_infinite, quantiles=quantiles)


def _is_told(q: float, count: int) -> bool:
    """Whether so many values have a `q` of their own, apart from the largest."""
    return q in (0.0, 1.0) or (1 - q) * count >= 1


def _nearest_rank(ordered: Sequence[float], q: float) -> Number:
    value = ordered[max(0, math.ceil(q * len(ordered)) - 1)]
    return value if math.isfinite(value) else "inf"


def _round_down(value: float) -> float:
    """Return the greatest of …, 1, 2, 5, 10, … that isn't above `value`."""
    power = 10.0 ** math.floor(math.log10(value))
    return max(step * power for step in _STEPS if step * power <= value * (1 + 1e-12))


def _round_up(value: float) -> float:
    """Return the least of …, 1, 2, 5, 10, … that is above `value`."""
    power = 10.0 ** math.floor(math.log10(value))
    return min(step * power for step in (*_STEPS, 10.0) if step * power > value)
