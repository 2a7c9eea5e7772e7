"""The kinds of load, through the command and a mock: what was planned is what was sent."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.builders.bench_run import run_bench
from tests.builders.mock import mock_process
from tgi_cli.runtime.bench.request_log import requests_by_stage

QUICK = ("--ttft=10ms", "--itl=2ms")
SMALL = ("--input-tokens=20", "--output-tokens=6", "--cooldown=0")
TRUSTED = (0, 5)  # 5: this machine was too busy to trust, and said so


def json_lines(path: Path, rows: Sequence[dict[str, Any]]) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return str(path)


def test_a_sweep_finds_where_more_users_bring_no_more(tmp_path: Path) -> None:
    with mock_process("--ttft=60ms", "--slots=3") as url:  # 50 requests/s, from three users on
        run = run_bench(
            url, tmp_path / "out", "--sweep", "--duration=600ms", "--warmup=2", "--output-tokens=1",
            "--input-tokens=20", "--cooldown=0", "--slo=ttft.p50<10s",
        )  # fmt: skip

    keys = [stage.key for stage in run.result.stages]
    assert keys[:2] == ["concurrency=1", "concurrency=2"]
    if run.exit_code == 5:
        return  # a sweep on a busy machine stops where the client becomes the limit
    assert run.exit_code == 0, run.messages
    assert run.result.sweep.sat_req_s == pytest.approx(50, rel=0.3)
    assert 2 <= (run.result.sweep.knee or 0) <= 8
    assert len([key for key in keys if key.startswith("rate=")]) >= 4
    assert "sweep: saturated at" in run.report


def test_a_trace_is_replayed_at_its_own_times_and_lengths(tmp_path: Path) -> None:
    rows = [
        {"timestamp": 100.0 + 0.05 * k, "input_length": 20 + k, "output_length": 2 + k % 5}
        for k in range(12)
    ]
    file = json_lines(tmp_path / "trace.jsonl", rows)

    with mock_process(*QUICK) as url:
        run = run_bench(url, tmp_path / "out", f"--trace={file}", "--trace-speed=2")

    assert run.exit_code in TRUSTED, run.messages
    first = run.requests[0].sched
    assert [each.sched - first for each in run.requests] == pytest.approx(
        [25_000_000 * k for k in range(12)], abs=2
    )
    assert [each.input_tokens for each in run.requests] == [20 + k for k in range(12)]
    assert [each.output_tokens for each in run.requests] == [2 + k % 5 for k in range(12)]


@pytest.mark.slow  # an interval needs twenty values, one a second
def test_a_stage_ends_when_its_interval_is_narrow_enough(tmp_path: Path) -> None:
    with mock_process(*QUICK) as url:
        run = run_bench(
            url, tmp_path / "out", *SMALL, "--concurrency=2", "--duration=60s", "--until-ci=30%"
        )

    assert run.exit_code in TRUSTED, run.messages
    assert run.stage.phases.w1 - run.stage.phases.w0 < 50
    low, high = run.stage.throughput.all.ci95["out_tok_s"]
    assert isinstance(low, float)
    assert isinstance(high, float)
    assert run.stage.counts.ok > 20


def test_repeats_are_interleaved_and_summed_up(tmp_path: Path) -> None:
    with mock_process(*QUICK, "--prefix-cache") as url:
        run = run_bench(
            url, tmp_path / "out", *SMALL, "--concurrency=1,2", "--requests=6", "--repeat=2",
            "--prefix-cache=avoid", "--input-tokens=uniform:20..90", "--protocol=completions",
        )  # fmt: skip

    assert run.exit_code in TRUSTED, run.messages
    keys = [(stage.key, stage.repeat) for stage in run.result.stages]
    assert keys == [(f"concurrency={n}", r) for r in (0, 1) for n in (1, 2)]
    assert [(each.key, each.runs) for each in run.result.aggregate] == [
        ("concurrency=1", 2),
        ("concurrency=2", 2),
    ]
    found = requests_by_stage(run.folder / "requests.jsonl")
    lengths = [
        {each.index: each.input_tokens for each in found["concurrency=1", repeat]}
        for repeat in (0, 1)
    ]
    shared = lengths[0].keys() & lengths[1].keys()
    assert len(shared) >= 6
    assert all(lengths[0][index] == lengths[1][index] for index in shared)
    assert run.result.stages[2].tokens.cached_fraction == 0  # fresh words, though equally long


def test_a_turn_is_planned_after_the_answer_and_the_thinking(tmp_path: Path) -> None:
    talk = [{"role": "user", "content": f"question {k}"} for k in range(3)]
    for place in (3, 2, 1):
        talk.insert(place, {"role": "assistant", "content": "recorded"})
    file = json_lines(tmp_path / "talks.jsonl", [{"messages": talk}] * 2)

    with mock_process(*QUICK) as url:
        run = run_bench(
            url, tmp_path / "out", f"--conversations={file}", "--concurrency=1", "--requests=6",
            "--think-time=30ms", "--output-tokens=4", "--protocol=chat",
        )  # fmt: skip

    assert run.exit_code in TRUSTED, run.messages
    assert [each.turn for each in run.requests] == [0, 1, 2, 0, 1, 2]
    for before, after in zip(run.requests, run.requests[1:], strict=False):
        assert before.end is not None
        assert after.sched == before.end + 30_000_000
    sizes = [each.input_tokens or 0 for each in run.requests[:3]]
    assert sizes == sorted(set(sizes))  # history grows by the answers
    assert [part.num_requests for part in run.stage.by_turn] == [2, 2, 2]


def test_a_warm_cache_despite_avoid_is_the_first_line(tmp_path: Path) -> None:
    with mock_process(*QUICK, "--prefix-cache") as url:
        run = run_bench(
            url, tmp_path / "out", "--prefix-cache=avoid", "--shared-prefix=64",
            "--input-tokens=90", "--output-tokens=2", "--concurrency=1", "--requests=8",
        )  # fmt: skip

    assert run.exit_code in TRUSTED, run.messages
    assert run.report.startswith("WARM CACHE: ")
    assert "--shared-prefix repeats some" in run.report.splitlines()[0]


@pytest.mark.parametrize(
    ("slo", "exit_code"),
    [
        (("--slo=ttft.p50<30s", "--slo=e2e.p50<30s@c=2"), 0),
        (("--slo=ttft.p50<30s", "--slo=e2e.p50<1ms@c=2"), 3),
        (("--slo=ttft.p99<30s", "--strict"), 3),  # 8 requests prove no p99
    ],
)
def test_limits_decide_the_exit_code(tmp_path: Path, slo: tuple[str, ...], exit_code: int) -> None:
    with mock_process(*QUICK) as url:
        run = run_bench(url, tmp_path / "out", *SMALL, "--concurrency=2", "--requests=8", *slo)

    assert run.exit_code in {exit_code, 5}, run.messages
    assert len(run.result.slo) == len([each for each in slo if each.startswith("--slo")])
