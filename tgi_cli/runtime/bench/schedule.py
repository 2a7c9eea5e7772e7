"""When requests leave in an open loop, and when users start in a closed one.

Times are seconds from the stage's start, absolute, and drawn before it. Gaps are not rescaled to
fit: a Poisson stage of 10 s at 2 requests a second has 20 requests on average, not always.

A load that changes is a process of rate 1 in its own time, put into real time by the inverse of
the load's integral, which is exact. Spec: bench.md section 6.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from tgi_cli.runtime.bench.stages import Arrival, StageSpec

if TYPE_CHECKING:
    from numpy.typing import NDArray

_SLACK = 1e-9  # of rounding, in requests


def arrival_times(
    spec: StageSpec, generator: np.random.Generator, *, until_s: float, max_count: int | None = None
) -> NDArray[np.float64]:
    """Return the arrivals of a stage with a rate or a ramp of rates, in [0, until_s), rising.

    A ramp stays at its last rate after its end. Asking for a longer time adds to the end alone.
    """
    total = _integral(spec, until_s)
    events = _unit_events(spec.arrival, spec.burstiness, total, generator, max_count)
    times = _inverse(spec, events)
    return times[times < until_s] if spec.arrival != "constant" else times


def user_starts(spec: StageSpec, stagger_s: float) -> list[float]:
    """Return when each user of a closed loop starts.

    Users of a ramp start, or stop (`user_stops`), when the line reaches their number.
    """
    if spec.ramp_kind == "concurrency":
        assert spec.ramp_to is not None
        assert spec.duration_s is not None
        return [
            _crossing(spec, number)
            for number in range(1, math.ceil(max(spec.value, spec.ramp_to)) + 1)
        ]
    count = int(spec.value)
    return [stagger_s * number / count for number in range(count)]


def user_stops(spec: StageSpec) -> list[float | None]:
    """Return when each user sends nothing more; None: at the stage's end."""
    users = len(user_starts(spec, 0.0))
    if spec.ramp_kind != "concurrency" or spec.ramp_to is None or spec.ramp_to >= spec.value:
        return [None] * users
    assert spec.duration_s is not None
    slope = (spec.value - spec.ramp_to) / spec.duration_s
    return [
        None if number <= spec.ramp_to else (spec.value - number) / slope
        for number in range(1, users + 1)
    ]


def _crossing(spec: StageSpec, number: int) -> float:
    """Return when the rising line reaches `number` users; 0 on a falling one."""
    assert spec.ramp_to is not None
    assert spec.duration_s is not None
    if number <= spec.value or spec.ramp_to <= spec.value:
        return 0.0
    return (number - spec.value) / (spec.ramp_to - spec.value) * spec.duration_s


def _unit_events(
    arrival: Arrival,
    burstiness: float,
    total: float,
    generator: np.random.Generator,
    max_count: int | None,
) -> NDArray[np.float64]:
    """Return the events of a process of rate 1 in [0, total)."""
    limit = math.inf if max_count is None else max_count
    if arrival == "constant":
        return np.arange(math.ceil(min(total - _SLACK, limit)), dtype=np.float64)
    pieces: list[NDArray[np.float64]] = []
    end, found = 0.0, 0
    while end < total and found < limit:
        # Always the same size: numbers drawn don't depend on how many are wanted.
        gaps = (
            generator.standard_exponential(4096)
            if arrival == "poisson"
            else generator.gamma(burstiness, 1 / burstiness, 4096)
        )
        piece = end + np.cumsum(gaps)
        pieces.append(piece)
        end, found = float(piece[-1]), found + len(piece)
    events = np.concatenate(pieces) if pieces else np.empty(0)
    events = events[events < total]
    return events if max_count is None else events[:max_count]


def _integral(spec: StageSpec, until_s: float) -> float:
    """Return the requests that the load asks for up to `until_s`."""
    if spec.ramp_to is None:
        return spec.value * until_s
    assert spec.duration_s is not None
    on_ramp = min(until_s, spec.duration_s)
    slope = (spec.ramp_to - spec.value) / spec.duration_s
    return (spec.value + slope * on_ramp / 2) * on_ramp + spec.ramp_to * (until_s - on_ramp)


def _inverse(spec: StageSpec, events: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return when the load's integral reaches each event."""
    if spec.ramp_to is None:
        return events / spec.value
    assert spec.duration_s is not None
    start, stop, duration = spec.value, spec.ramp_to, spec.duration_s
    slope = (stop - start) / duration
    whole = (start + stop) / 2 * duration
    on_ramp = np.minimum(events, whole)
    # The root of start * t + slope * t^2 / 2 = events in a form that holds for a slope of 0 too.
    root = np.sqrt(np.maximum(start * start + 2 * slope * on_ramp, 0.0))
    times: NDArray[np.float64] = np.divide(
        2 * on_ramp, start + root, out=np.zeros_like(events), where=on_ramp > 0
    )
    after = np.maximum(events - whole, 0.0)
    if stop > 0:
        times += after / stop
    return times
