"""The generator's own part: everything planned is sent, and a slow client says that it is slow."""

from __future__ import annotations

import numpy as np
import pytest

from tests.builders.mock import mock_process
from tests.builders.stage import MS, StageOutcome, open_loop, run_stage
from tgi_cli.runtime.bench.schedule import arrival_times
from tgi_cli.runtime.bench.stages import Arrival
from tgi_cli.runtime.bench.statistics import slope_interval


def is_poisson(moments: list[int], rate: float) -> bool:
    """Whether gaps between moments (ns) pass the test of Kolmogorov and Smirnov at 1 %."""
    gaps = np.sort(np.diff(np.array(moments) / 1e9))
    model = 1 - np.exp(-rate * gaps)
    steps = np.arange(len(gaps) + 1) / len(gaps)
    distance = max(np.max(steps[1:] - model), np.max(model - steps[:-1]))
    return bool(distance < 1.63 / np.sqrt(len(gaps)))


async def send_plan(
    rate: float, duration_s: float, arrival: Arrival, num_workers: int = 1
) -> tuple[StageOutcome, list[float]]:
    spec = open_loop(rate, duration_s, arrival=arrival, burstiness=0.5)
    plan = arrival_times(spec, np.random.default_rng(11), until_s=duration_s).tolist()
    with mock_process("--ttft", "5ms", "--itl", "1ms") as url:
        outcome = await run_stage(
            url, spec, output_tokens=2, schedule=plan, num_workers=num_workers
        )
    return outcome, plan


@pytest.mark.parametrize(
    ("arrival", "rate", "duration_s"),
    [("constant", 1, 3.0), ("constant", 500, 1.0), ("poisson", 200, 1.5), ("gamma", 150, 1.5)],
)
async def test_everything_planned_is_sent_at_its_own_time(
    arrival: Arrival, rate: float, duration_s: float
) -> None:
    outcome, plan = await send_plan(rate, duration_s, arrival)

    requests = outcome.requests
    if arrival == "constant":
        assert len(requests) == rate * duration_s
    assert [request.index for request in requests] == list(range(len(plan)))
    start = requests[0].sched - round(plan[0] * 1e9)
    assert [request.sched - start for request in requests] == [round(at * 1e9) for at in plan]
    for request in requests:
        assert request.wake is not None
        assert request.sent is not None
        assert request.sched <= request.wake <= request.sent
    assert outcome.stage.counts.sent == outcome.stage.counts.ok == len(plan)


async def test_four_workers_send_the_plan_that_one_sends() -> None:
    one, plan = await send_plan(120, 1.5, "poisson", num_workers=1)
    four, _ = await send_plan(120, 1.5, "poisson", num_workers=4)

    def planned(outcome: StageOutcome) -> list[tuple[int, int]]:
        first = outcome.requests[0].sched
        return [(request.index, request.sched - first) for request in outcome.requests]

    assert planned(one) == planned(four)
    assert {request.worker for request in four.requests} == {0, 1, 2, 3}
    assert is_poisson([request.sched for request in four.requests], 120)
    assert four.stage.counts.ok == len(plan)


@pytest.mark.perf
@pytest.mark.parametrize("num_workers", [1, 4])
async def test_lag_at_500_requests_a_second_is_below_1_ms_and_has_no_trend(
    num_workers: int,
) -> None:
    outcome, _ = await send_plan(500, 8.0, "poisson", num_workers)

    planned = np.array([request.sched for request in outcome.requests]) / 1e9
    lag = [((request.wake or 0) - request.sched) / 1e9 for request in outcome.requests]
    interval = slope_interval(planned, np.array(lag))
    assert interval is not None
    assert interval[0] * 8.0 < 0.0005  # no growth to speak of, in seconds over the stage
    p99 = outcome.stage.generator.lag.p99
    assert isinstance(p99, float)
    assert p99 <= 0.001


async def test_a_client_that_is_slowed_down_is_not_trusted() -> None:
    with mock_process("--ttft", "20ms", "--itl", "5ms") as url:
        outcome = await run_stage(url, open_loop(40, 2.0), output_tokens=8, busy_s=0.15)

    stage = outcome.stage
    assert stage.verdict == "invalid"
    assert stage.verdict_reasons
    lags = [request.wake - request.sched for request in outcome.requests if request.wake]
    assert max(lags) > 50 * MS
    # Better numbers would be worse than none: the lag is part of what a user waited.
    assert isinstance(stage.latency.ttft.ok.p99, float)
    assert stage.latency.ttft.ok.p99 > 0.07
