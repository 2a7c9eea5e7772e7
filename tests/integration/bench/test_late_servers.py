"""A server that stands still, or that can't keep up: nobody who had to wait is left out."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.builders.mock import mock_process
from tests.builders.stage import MS, StageOutcome, open_loop, run_stage
from tgi_cli.runtime.bench.mock.write_log import read_write_log

TTFT = 5 * MS


async def frozen(
    tmp_path: Path, rate: int, duration_s: float, length_s: int, cap: int | None
) -> tuple[StageOutcome, int]:
    """Freeze the mock in the middle; return when, in ns from the run's start."""
    log, at = tmp_path / "log", round(rate * duration_s / 4)
    freeze = ("--freeze", f"{length_s}s@{at}")
    with mock_process("--ttft", "5ms", *freeze, "--log", str(log)) as url:
        outcome = await run_stage(
            url, open_loop(rate, duration_s, max_concurrency=cap), output_tokens=1
        )
    first_caught = next(entry for entry in read_write_log(log) if entry.index == at)
    return outcome, first_caught.received - outcome.origin


def expected_ttfts(outcome: StageOutcome, frozen_from: int, length: int) -> list[int]:
    """Return what arithmetic makes of the plan: who comes in the freeze waits for its end."""
    thaw = frozen_from + length
    first = len(outcome.requests) // 4  # by whose arrival the freeze began
    return [
        TTFT + (max(thaw - request.sched, 0) if request.index >= first else 0)
        for request in outcome.requests
    ]


def percentile(values: list[int], share: float) -> int:
    return sorted(values)[round(share * len(values)) - 1]


def ttfts(outcome: StageOutcome) -> list[int]:
    return [(request.first or 0) - request.sched for request in outcome.requests]


async def test_a_freeze_is_seen_by_everyone_who_was_planned_into_it(tmp_path: Path) -> None:
    outcome, frozen_from = await frozen(tmp_path, 100, 2.0, 1, None)

    found = ttfts(outcome)
    expected = expected_ttfts(outcome, frozen_from, 1000 * MS)
    assert [request.index for request in outcome.requests] == list(range(200))
    assert outcome.stage.counts.ok == outcome.stage.counts.planned == 200
    assert abs(percentile(found, 0.99) - percentile(expected, 0.99)) < 60 * MS
    late = sum(value > 200 * MS for value in found)
    assert abs(late - sum(value > 200 * MS for value in expected)) < 8


async def test_a_freeze_shows_in_response_times_and_not_in_service_times(tmp_path: Path) -> None:
    outcome, _ = await frozen(tmp_path, 50, 3.0, 1, cap=1)

    service = [(request.first or 0) - (request.sent or 0) for request in outcome.requests]
    assert outcome.stage.counts.ok == 150
    assert sum(value > 300 * MS for value in service) == 1
    assert sum(value > 300 * MS for value in ttfts(outcome)) > 30
    assert max(request.gate - request.wake for request in outcome.requests) > 500 * MS  # type: ignore[operator]


@pytest.mark.perf
async def test_five_frozen_seconds_are_late_by_the_arithmetic_of_queues(tmp_path: Path) -> None:
    outcome, frozen_from = await frozen(tmp_path, 20, 20.0, 5, None)

    found = ttfts(outcome)
    expected = expected_ttfts(outcome, frozen_from, 5000 * MS)
    assert outcome.stage.counts.ok == outcome.stage.counts.planned == 400
    # What the freeze held back is answered all at once: 100 streams at some 0.1 ms of both sides.
    assert abs(percentile(found, 0.99) - percentile(expected, 0.99)) < 25 * MS
    assert sum(value > 1000 * MS for value in found) == sum(value > 1000 * MS for value in expected)
    assert 98 <= sum(value > 10 * MS for value in found) <= 102


async def test_more_than_a_server_can_do_waits_in_its_queue_and_is_called_unstable() -> None:
    with mock_process("--slots", "1", "--ttft", "50ms") as url:  # 20 requests/s at best
        outcome = await run_stage(url, open_loop(40, 2.0), output_tokens=1)

    found = ttfts(outcome)
    assert outcome.stage.counts.ok == 80
    assert found[-1] > 1500 * MS  # the last one waits behind half of the plan
    assert outcome.stage.is_stable is False


async def test_what_waits_behind_a_cap_when_the_drain_is_over_is_dropped() -> None:
    with mock_process("--ttft", "200ms") as url:
        spec = open_loop(20, 1.0, max_concurrency=1, drain_s=0.5)
        outcome = await run_stage(url, spec, output_tokens=1)

    counts = outcome.stage.counts
    assert counts.planned == 20
    assert counts.dropped > 5
    assert counts.ok + counts.dropped + counts.unfinished == 20
    assert outcome.stage.latency.ttft.all.p99 == "inf"
