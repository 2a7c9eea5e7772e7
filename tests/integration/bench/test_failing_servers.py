"""Servers that refuse, break off or never answer: each failure in its class, none a success."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from tests.builders.mock import mock_process
from tests.builders.stage import StageOutcome, closed_loop, open_loop, run_stage
from tgi_cli.runtime.bench.messages import Timeouts
from tgi_cli.runtime.bench.mock.write_log import read_write_log
from tgi_cli.runtime.bench.protocols import ProtocolName

CLASSES = {
    "ok": None,
    "status": "http_5xx",
    "error-event": "stream_error",
    "truncated": "truncated",
    "cut": "truncated",
    "reset": "reset",
    "empty": "empty",
    "garbage": "protocol",
    "hang": "first_token_timeout",
    "stall": "idle_timeout",
}


@pytest.mark.parametrize("protocol", ["tgi", "completions", "chat"])
async def test_each_failure_is_counted_in_its_class(tmp_path: Path, protocol: ProtocolName) -> None:
    log = tmp_path / "log"
    kinds = ("503", *(kind for kind in CLASSES if kind not in ("ok", "status", "stall")))
    faults = [f"--fault=9%:{kind}" for kind in (*kinds, "stall:60s")]

    with mock_process(*faults, "--ttft=5ms", "--itl=2ms", "--log", str(log)) as url:
        outcome = await run_stage(
            url,
            open_loop(100, 1.0),
            protocol=protocol,
            timeouts=Timeouts(first_token_s=1.0, idle_s=1.0),
        )

    found = Counter(request.failure for request in outcome.requests)
    expected = Counter(CLASSES[entry.outcome] for entry in read_write_log(log))
    assert found == expected
    assert set(found) == set(CLASSES.values())
    counts = outcome.stage.counts
    assert counts.by_class == {name: n for name, n in expected.items() if name is not None}
    assert set(counts.messages) == set(counts.by_class)
    assert counts.ok == expected[None]


async def run_with(*args: str) -> StageOutcome:
    with mock_process("--ttft=10ms", "--itl=2ms", *args) as url:
        return await run_stage(url, open_loop(60, 2.0), limits={"e2e": 5.0})


async def test_a_server_that_refuses_fast_looks_worse_and_not_better() -> None:
    well, refusing = await run_with(), await run_with("--fault=10%:429")

    good, bad = well.stage, refusing.stage
    assert (good.counts.ok, bad.counts.ok) == (120, 108)
    assert bad.counts.by_class == {"http_429": 12}
    assert isinstance(good.latency.ttft.all.p95, float)
    assert bad.latency.ttft.all.p95 == bad.latency.e2e.all.p99 == "inf"
    assert isinstance(bad.latency.ttft.ok.p95, float)
    assert good.goodput.fraction == 1.0
    assert bad.goodput.fraction == pytest.approx(0.9)


async def test_nobody_there_is_a_failure_of_every_request() -> None:
    with mock_process() as url:
        pass  # its port is free again

    outcome = await run_stage(url, closed_loop(3, num_requests=9))

    assert {request.failure for request in outcome.requests} == {"refused"}
