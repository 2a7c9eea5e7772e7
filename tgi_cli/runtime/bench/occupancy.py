"""How many requests the server held over time, and how many tokens came when.

A request is held from when it was sent until it ended, whether it went well or not. Times are
nanoseconds; bins are equal and the last one may be cut off. Spec: bench.md section 3.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import chain

import numpy as np

from tgi_cli.runtime.bench.records import RequestRecord


class Occupancy:
    """The number of held requests, as a staircase."""

    def __init__(self, requests: Iterable[RequestRecord], until: int) -> None:
        """`until`: when the last open ones were given up."""
        spans = [
            (request.sent, max(_left(request, until), request.sent))
            for request in requests
            if request.sent is not None
        ]
        starts = np.array([start for start, _ in spans], dtype=np.int64)
        ends = np.array([end for _, end in spans], dtype=np.int64)
        moments = np.concatenate((starts, ends))
        # An end and a start at the same moment: the end comes first.
        steps = np.concatenate((np.ones(len(starts), np.int64), -np.ones(len(ends), np.int64)))
        order = np.lexsort((steps, moments))
        self._moments = moments[order]
        self._levels = np.cumsum(steps[order])  # from each moment on
        widths = np.diff(self._moments, append=self._moments[-1:])
        self._areas = np.concatenate(([0.0], np.cumsum(self._levels * widths.astype(np.float64))))

    def at(self, moments: np.ndarray) -> np.ndarray:
        """Return the level at each moment."""
        index = np.searchsorted(self._moments, moments, side="right") - 1
        levels = np.concatenate((self._levels, [0]))
        return np.asarray(np.where(index < 0, 0, levels[index]))

    def means(self, edges: np.ndarray) -> np.ndarray:
        """Return the time-weighted mean between each two edges."""
        widths = np.diff(edges)
        return np.diff(self._integral(edges)) / np.where(widths > 0, widths, 1)

    def highest(self, start: int, stop: int) -> int:
        """Return the highest level in [start, stop)."""
        inside = (self._moments > start) & (self._moments < stop)
        at_start = int(self.at(np.array([start]))[0])
        return max(at_start, int(self._levels[inside].max(initial=0)))

    def _integral(self, moments: np.ndarray) -> np.ndarray:
        """Return the area under the staircase up to each moment."""
        if len(self._moments) == 0:
            return np.zeros(len(moments))
        index = np.searchsorted(self._moments, moments, side="right") - 1
        inside = np.maximum(index, 0)
        rest = self._levels[inside] * (moments - self._moments[inside]).astype(np.float64)
        return np.where(index < 0, 0.0, self._areas[inside] + rest)


def _left(request: RequestRecord, until: int) -> int:
    if request.end is not None:
        return request.end
    if request.failure == "unfinished":
        return until
    return max(request.last or 0, request.headers or 0, request.sent or 0)


def bin_edges(start: int, stop: int, width: int) -> np.ndarray:
    """Return the edges of bins of `width` from `start`; the last one ends at `stop`."""
    return np.append(np.arange(start, max(stop, start + 1), width, dtype=np.int64), stop)


def arrivals(requests: Sequence[RequestRecord]) -> tuple[np.ndarray, np.ndarray]:
    """Return the moments of all deliveries and their tokens."""
    total = sum(len(request.deliveries) for request in requests)
    moments = chain.from_iterable(request.deliveries for request in requests)
    tokens = chain.from_iterable(request.tokens for request in requests)
    return np.fromiter(moments, np.int64, total), np.fromiter(tokens, np.int64, total)


def totals(moments: np.ndarray, weights: np.ndarray, edges: np.ndarray) -> np.ndarray:
    """Return the sum of the weights whose moments lie in each [edge, next edge)."""
    order = np.argsort(moments, kind="stable")
    up_to = np.concatenate(([0], np.cumsum(weights[order])))
    return np.diff(up_to[np.searchsorted(moments[order], edges, side="left")])
