"""Counters, gauges and histograms, and their text in Prometheus' exposition format 0.0.4.

prometheus-client adds `_total` and `_created` to counters, which dashboards written for TGI don't
know; so these are ours. What doesn't change between scrapes, the series' names with their labels,
is made once: a scrape of two thousand lines takes well under a millisecond of the event loop.

https://prometheus.io/docs/instrumenting/exposition_formats/
"""

from __future__ import annotations

from bisect import bisect_left
from decimal import Decimal
from itertools import accumulate

Labels = tuple[tuple[str, str], ...]


class Value:
    """A counter or a gauge."""

    __slots__ = ("_series", "number")

    def __init__(self, name: str, labels: Labels) -> None:
        self._series = f"{name}{_label_text(labels)} "
        self.number: float = 0

    def lines(self) -> list[str]:
        return [self._series + number_text(self.number)]


class Histogram:
    """Counts of observations up to each bound, and their sum."""

    __slots__ = ("_bounds", "_counts", "_series", "_sum", "_totals")

    def __init__(self, name: str, labels: Labels, bounds: tuple[float, ...]) -> None:
        self._bounds = bounds
        self._counts = [0] * (len(bounds) + 1)
        self._sum = 0.0
        self._series = [
            f"{name}_bucket{_label_text((*labels, ('le', bound)))} "
            for bound in (*map(number_text, bounds), "+Inf")
        ]
        self._totals = [f"{name}_{total}{_label_text(labels)} " for total in ("sum", "count")]

    def observe(self, value: float, times: int = 1) -> None:
        self._counts[bisect_left(self._bounds, value)] += times
        self._sum += value * times

    def lines(self) -> list[str]:
        up_to = list(accumulate(self._counts))
        lines = [f"{series}{count}" for series, count in zip(self._series, up_to, strict=True)]
        of_sum, of_count = self._totals
        return [*lines, of_sum + number_text(self._sum), f"{of_count}{up_to[-1]}"]


def _label_text(labels: Labels) -> str:
    if not labels:
        return ""
    return "{" + ",".join(f'{name}="{value}"' for name, value in labels) + "}"


def number_text(value: float) -> str:
    """Return the shortest decimal that reads as `value`, without `.0` and without an exponent."""
    if value == int(value):
        return str(int(value))
    text = repr(value)
    return format(Decimal(text), "f") if "e" in text else text
