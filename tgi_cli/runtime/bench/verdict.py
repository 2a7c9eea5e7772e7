"""Whether a stage's numbers can be trusted, and whether the server kept up with the load.

The verdict is about the client: an invalid stage keeps its numbers, but they tell of the machine
that made the load. Stability is about the server. Spec: bench.md sections 6 and 11.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np

from tgi_cli.runtime.bench.occupancy import Occupancy
from tgi_cli.runtime.bench.rates import requests_ended
from tgi_cli.runtime.bench.records import RequestRecord, StageRecord
from tgi_cli.runtime.bench.result import Counts, Generator, Verdict
from tgi_cli.runtime.bench.samples import NS, RESPONSE
from tgi_cli.runtime.bench.statistics import NUM_BATCHES, real, slope_interval

_Show = Callable[[float], str]

_MS = 1e-3
_MAX_RESIDUAL = 0.1  # of Little's law
_MIN_SENT = 0.99
_MIN_DONE = 0.95
_SETTLING_S = 30.0


def judge(
    record: StageRecord,
    counts: Counts,
    generator: Generator,
    median_latency_s: float | None,
    little_residual: float | None,
    edge_share: float,
) -> tuple[Verdict, list[str]]:
    """Return the verdict and its reasons, the worst first.

    `median_latency_s`: what the lag is held against, the TTFT where there is one. `edge_share`: how
    much of the window the longest request fills; requests cut by its edges explain that much of
    Little's residual.
    """
    warnings: list[str] = []
    faults: list[str] = []
    _judge_limit(generator.cpu_max, 0.7, 0.9, "worker CPU", _percent, warnings, faults)
    _judge_limit(
        generator.loop_lag_p99, 2 * _MS, 10 * _MS, "loop lag p99", _milliseconds, warnings, faults
    )
    _judge_lag(real(generator.lag.p99), median_latency_s, warnings, faults)
    if record.clock_jumped:
        faults.append("the clock jumped")
    if _fell_behind(record):
        num_taken = _num_taken(record)
        faults.append(f"{num_taken} of {counts.planned} planned requests were sent")
    if (
        record.is_closed_loop
        and little_residual is not None
        and little_residual > _MAX_RESIDUAL + edge_share
    ):
        faults.append(f"concurrency isn't rate times latency: off by {_percent(little_residual)}")
    if faults:
        return "invalid", faults + warnings
    return ("warn", warnings) if warnings else ("valid", [])


def _judge_limit(
    value: float | None,
    warn_above: float,
    fail_above: float,
    name: str,
    show: _Show,
    warnings: list[str],
    faults: list[str],
) -> None:
    if value is None:
        return
    if value > fail_above:
        faults.append(f"{name} {show(value)} > {show(fail_above)}")
    elif value > warn_above:
        warnings.append(f"{name} {show(value)} > {show(warn_above)}")


def _judge_lag(
    lag: float | None, median: float | None, warnings: list[str], faults: list[str]
) -> None:
    """Hold the lateness of sending against the latency that it is part of."""
    if lag is None or median is None:
        return
    share = lag / median if median > 0 else math.inf
    text = f"lag p99 {_milliseconds(lag)} is {_percent(share)} of the median latency"
    if share > 0.1 and lag > 5 * _MS:
        faults.append(text)
    elif share > 0.01 and lag > _MS:
        warnings.append(text)


def _fell_behind(record: StageRecord) -> bool:
    ended_by_plan = record.stopped_by in ("requests", "duration", "ci")
    if record.has_cap or record.is_closed_loop or not ended_by_plan:
        return False
    return _num_taken(record) < _MIN_SENT * record.num_planned


def _num_taken(record: StageRecord) -> int:
    """Return how many planned requests the client tried to send, whether or not it could."""
    return sum(
        record.w0 <= request.sched < record.w1 and request.wake is not None
        for request in record.requests
    )


def stability(
    record: StageRecord, requests: Sequence[RequestRecord], occupancy: Occupancy
) -> tuple[bool, str | None]:
    """Return whether the server kept up with an open loop of one rate; if not, why.

    Unstable: requests in flight and TTFT both rise after 30 s, each with a slope whose interval
    lies above 0; or fewer than 95 % of what was offered gets done. That is counted over the second
    half of the window, for the server is empty when the window begins. Its edges cut some requests:
    a shortfall that chance explains, twice the square root of those, isn't the server's.
    """
    middle = (record.w0 + record.w1) // 2
    num_offered = sum(request.sched >= middle for request in requests)
    num_done = len(requests_ended(record.requests, middle, record.w1))
    num_cut = int(occupancy.at(np.array([middle, record.w1])).clip(0).sum())
    is_short = num_done < _MIN_DONE * num_offered
    if is_short and num_offered - num_done > 2 * math.sqrt(num_cut):
        return False, f"{num_done} done of {num_offered} offered in the second half"
    start = record.w0 + int(_SETTLING_S * NS)
    if start < record.w1 and _rises(record, requests, occupancy, start):
        return False, f"requests in flight and TTFT still rise after {_SETTLING_S:.0f} s"
    return True, None


def _rises(
    record: StageRecord, requests: Sequence[RequestRecord], occupancy: Occupancy, start: int
) -> bool:
    """Hold both slopes against 0, over means of batches: neighbours in time aren't independent."""
    edges = np.linspace(start, record.w1, NUM_BATCHES + 1)
    middles = (edges[:-1] + edges[1:]) / 2 / NS
    in_flight = slope_interval(middles, occupancy.means(edges))
    ttft = RESPONSE["ttft"]
    pairs = [
        (request.sched, seconds)
        for request in requests
        if request.sched >= start and (seconds := ttft(request)) is not None
    ]
    if len(pairs) < 2 * NUM_BATCHES or in_flight is None:
        return False
    points = np.array(pairs, dtype=np.float64)
    batches = [batch.mean(axis=0) for batch in np.array_split(points, NUM_BATCHES)]
    moments, seconds_of = np.array(batches).T
    waiting = slope_interval(moments / NS, seconds_of)
    return waiting is not None and in_flight[0] > 0 and waiting[0] > 0


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %" if share < 10 else "over 1000 %"


def _milliseconds(seconds: float) -> str:
    return f"{1000 * seconds:.3g} ms"
