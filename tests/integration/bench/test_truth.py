"""What the bench reports, laid beside the mock's own notes of what it wrote and when."""

from __future__ import annotations

import math
from itertools import pairwise
from pathlib import Path
from statistics import fmean, median

import pytest

from tests.builders.mock import mock_process
from tests.builders.stage import (
    MS,
    StageOutcome,
    Truth,
    beside_the_log,
    closed_loop,
    open_loop,
    run_stage,
)
from tgi_cli.runtime.bench.protocols import BodyOptions, ProtocolName

PACE = ("--ttft", "uniform:20ms..60ms", "--itl", "uniform:2ms..8ms", "--seed", "3")
NUM_TOKENS = 27


async def measure(
    tmp_path: Path, protocol: ProtocolName, *args: str, rate: float = 25, duration_s: float = 1.2
) -> tuple[StageOutcome, list[Truth]]:
    """Put a steady load on a mock of its own process."""
    log = tmp_path / "log"
    with mock_process(*PACE, "--log", str(log), *args) as url:
        outcome = await run_stage(
            url, open_loop(rate, duration_s), protocol=protocol, output_tokens=NUM_TOKENS
        )
    return outcome, beside_the_log(outcome, log)


def nearest_rank(values: list[float], share: float) -> float:
    return sorted(values)[max(math.ceil(share * len(values)), 1) - 1]


@pytest.mark.parametrize(
    ("protocol", "args"),
    [
        ("tgi", ()),
        ("tgi", ("--events-per-write", "4")),
        ("completions", ("--tokens-per-event", "4")),
        ("chat", ("--writes-per-event", "3", "--reasoning-tokens", "5")),
        ("chat", ("--usage", "none", "--events-per-write", "3")),
        ("chat", ("--token-ids", "--tokens-per-event", "5")),
    ],
)
async def test_tokens_and_requests_are_those_that_were_written(
    tmp_path: Path, protocol: ProtocolName, args: tuple[str, ...]
) -> None:
    outcome, truths = await measure(tmp_path, protocol, *args)

    assert len(truths) == len(outcome.requests) == outcome.stage.counts.ok == 30
    for truth in truths:
        assert truth.record.output_tokens == truth.written.output_tokens == NUM_TOKENS
        assert truth.record.num_events == sum(truth.written.events)
        if "none" not in args:
            assert truth.record.input_tokens == truth.written.input_tokens
    assert outcome.stage.tokens.output == 30 * NUM_TOKENS
    # Nothing is seen before it was written, and the rest of this machine's work is all that delays.
    delays = [delay for truth in truths for delay in truth.delays]
    assert min(delays) >= 0
    assert median(delays) < 20 * MS


@pytest.mark.perf
@pytest.mark.parametrize("protocol", ["tgi", "completions", "chat"])
async def test_stamps_and_percentiles_are_within_2_ms_of_the_truth(
    tmp_path: Path, protocol: ProtocolName
) -> None:
    outcome, truths = await measure(tmp_path, protocol, rate=50, duration_s=6)

    delays = [delay for truth in truths for delay in truth.delays]
    assert nearest_rank(delays, 0.99) < 2 * MS
    latency = outcome.stage.latency
    true_ttft = [(truth.written_at(1) - truth.record.sched) / 1e9 for truth in truths]
    true_e2e = [
        ((truth.written.ended or 0) - truth.origin - truth.record.sched) / 1e9 for truth in truths
    ]
    true_itl = [(b - a) / 1e9 for truth in truths for a, b in pairwise(truth.written.writes)]
    for reported, true in ((latency.ttft, true_ttft), (latency.e2e, true_e2e)):
        assert reported.ok.p50 == pytest.approx(nearest_rank(true, 0.5), abs=0.002)
        assert reported.ok.p99 == pytest.approx(nearest_rank(true, 0.99), abs=0.002)
    assert latency.itl.ok.p50 == pytest.approx(nearest_rank(true_itl, 0.5), abs=0.002)
    assert latency.itl.ok.p90 == pytest.approx(nearest_rank(true_itl, 0.9), abs=0.002)


PACKINGS = [(1, 1), (2, 1), (4, 1), (8, 1), (1, 4)]


async def packed(tmp_path: Path, itl: str, num_requests: int) -> list[StageOutcome]:
    """Measure one and the same stream, packed in several ways."""
    outcomes = []
    for tokens_per_event, events_per_write in PACKINGS:
        packing = (
            f"--tokens-per-event={tokens_per_event}",
            f"--events-per-write={events_per_write}",
        )
        with mock_process("--ttft", "30ms", "--itl", itl, *packing) as url:
            spec = closed_loop(2, num_requests=num_requests)
            outcomes.append(await run_stage(url, spec, output_tokens=64))
    return outcomes


def assert_packing_only_shows_in_icl(outcomes: list[StageOutcome], tolerance: float) -> None:
    plain = outcomes[0].stage
    assert isinstance(plain.latency.icl.ok.mean, float)
    for (tokens_per_event, events_per_write), outcome in zip(PACKINGS, outcomes, strict=True):
        stage, pack = outcome.stage, tokens_per_event * events_per_write
        assert stage.tokens.output == plain.tokens.output
        assert stage.latency.tpot.ok.mean == pytest.approx(
            plain.latency.tpot.ok.mean, rel=tolerance
        )
        assert stage.latency.itl.ok.mean == pytest.approx(plain.latency.itl.ok.mean, rel=tolerance)
        assert stage.latency.icl.ok.mean == pytest.approx(
            plain.latency.icl.ok.mean * pack, rel=max(tolerance, 0.1)
        )


async def test_packing_changes_neither_tokens_nor_time_per_token(tmp_path: Path) -> None:
    assert_packing_only_shows_in_icl(await packed(tmp_path, "8ms", 4), tolerance=0.3)


@pytest.mark.perf
async def test_packing_changes_time_per_token_by_less_than_2_percent(tmp_path: Path) -> None:
    assert_packing_only_shows_in_icl(await packed(tmp_path, "20ms", 6), tolerance=0.02)


async def test_an_event_with_only_the_role_is_no_token(tmp_path: Path) -> None:
    _, truths = await measure(tmp_path, "chat")

    for truth in truths:
        assert truth.written.headers is not None
        assert truth.record.first is not None
        # The role comes with the headers, long before the first text.
        assert truth.record.first >= truth.written_at(1)
        assert truth.record.first + truth.origin - truth.written.headers > 19 * MS


@pytest.mark.parametrize("usage", ["final", "continuous"])
async def test_a_server_that_counts_wrongly_is_believed_and_shown(usage: str) -> None:
    body = BodyOptions(continuous_usage_stats=True)

    with mock_process("--usage", usage, "--usage-offset", "3", "--itl", "2ms") as url:
        outcome = await run_stage(url, open_loop(20, 0.5), body=body, output_tokens=12)

    assert {request.output_tokens for request in outcome.requests} == {15}
    assert {request.own_output_tokens for request in outcome.requests} == {12}
    mismatch = outcome.stage.tokens.mismatch_mean
    assert mismatch == pytest.approx(fmean([3 / 15]))
