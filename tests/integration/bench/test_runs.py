"""`tgi bench` as people run it: what it leaves behind, and what its exit code says."""

from __future__ import annotations

import math
import signal
import subprocess
import time
from itertools import pairwise
from pathlib import Path

import psutil
import pytest

from tests.builders.bench_run import BenchRun, finish_bench, run_bench, start_bench
from tests.builders.mock import mock_process
from tgi_cli.runtime.bench.request_log import read_requests
from tgi_cli.runtime.bench.result_file import read_result

SMALL = ("--input-tokens=20", "--output-tokens=6")
STEADY = ("--rate=40", "--arrival=constant", "--duration=1500ms", *SMALL)
QUICK = ("--ttft=10ms", "--itl=2ms")
DEADLINE_S = 60.0


def nearest_rank(values: list[float], share: float) -> float:
    return sorted(values)[max(math.ceil(round(share * len(values), 9)), 1) - 1]


def seconds(later: int | None, earlier: int | None) -> float:
    return math.inf if later is None or earlier is None else (later - earlier) / 1e9


@pytest.mark.parametrize("protocol", ["tgi", "completions", "chat"])
def test_percentiles_are_those_of_the_requests_that_are_listed(
    tmp_path: Path, protocol: str
) -> None:
    out = tmp_path / "out"
    args = (f"--protocol={protocol}", *STEADY)

    with mock_process(
        "--ttft=uniform:5ms..40ms", "--itl=2ms", "--fault=5%:reset", "--spare=9"
    ) as url:
        run = run_bench(url, out, *args, "--max-errors=100%")

    assert run.exit_code in (0, 5), run.messages  # 5: this machine was too busy to trust
    assert run.result.exit_code == run.exit_code
    requests, latency = run.requests, run.stage.latency
    assert run.stage.counts.planned == len(requests) == 60
    assert 1 <= run.stage.counts.failed <= 6
    well = [request for request in requests if request.is_ok]
    for summary, values in [
        (latency.ttft.ok, [seconds(each.first, each.sched) for each in well]),
        (latency.e2e.ok, [seconds(each.end, each.sched) for each in well]),
        (latency.ttft.service, [seconds(each.first, each.sent) for each in well]),
        (latency.icl.ok, [seconds(b, a) for each in well for a, b in pairwise(each.deliveries)]),
    ]:
        assert summary is not None
        assert summary.n == len(values)
        for share, reported in ((0.5, summary.p50), (0.9, summary.p90), (0.99, summary.p99)):
            assert reported == pytest.approx(nearest_rank(values, share), abs=1e-9)
    assert latency.e2e.all.max == "inf"
    assert {request.output_tokens for request in well} == {6}


def test_the_folder_holds_every_form_of_the_result_and_needs_no_network(tmp_path: Path) -> None:
    out = tmp_path / "out"

    with mock_process(*QUICK) as url:
        run = run_bench(url, out, *STEADY)

    names = {path.name for path in out.iterdir()}
    assert names >= {
        "result.json", "requests.jsonl", "summary.csv", "report.html", "run.toml", "hdr",
    }  # fmt: skip
    assert not [name for name in names if name.endswith((".tmp", ".part"))]
    page = (out / "report.html").read_text(encoding="utf-8")
    assert len(page) < 1_000_000
    for reference in ("src=", "<link", "@import", "url(", "fetch("):
        assert reference not in page
    assert "rate=40" in run.report


@pytest.mark.parametrize(
    ("mock", "args", "exit_code", "words"),
    [
        (("--fault=10%:429", "--spare=9"), ("--max-errors=5%",), 4, "error"),
        ((), ("--slo=ttft.p50<1ms",), 3, "SLO"),
        (("--fault=100%:503",), (), 6, "http_5xx"),
        (("--tokens=2", "--refuse=ignore_eos", "--refuse=min_tokens"),
         ("--require-output-length",), 5, "exit 5"),
        ((), ("--concurrency=2",), 2, "load"),
    ],
)  # fmt: skip
def test_the_exit_code_says_how_it_went(
    tmp_path: Path, mock: tuple[str, ...], args: tuple[str, ...], exit_code: int, words: str
) -> None:
    with mock_process(*QUICK, *mock) as url:
        run = run_bench(url, tmp_path / "out", *STEADY, *args)

    assert run.exit_code == exit_code, run.messages
    assert words in run.messages + run.report


def test_nobody_there_is_said_at_once(tmp_path: Path) -> None:
    with mock_process() as url:
        pass  # its port is free again

    run = run_bench(url, tmp_path / "out", *STEADY)

    assert run.exit_code == 6
    assert len(run.messages.strip().splitlines()) <= 2  # what is wrong, and a hint


def test_a_client_that_stands_still_gives_no_numbers_to_trust(tmp_path: Path) -> None:
    out = tmp_path / "out"

    with mock_process(*QUICK) as url:
        process = start_bench(url, out, *STEADY, "--duration=3s", "--seed=1")
        worker = worker_of(process)
        until = time.monotonic() + DEADLINE_S
        while process.poll() is None and time.monotonic() < until:
            stop_for(worker, 0.25)
            time.sleep(0.1)
        run = finish_bench(process, out)

    assert run.exit_code == 5, run.messages
    assert run.stage.verdict == "invalid"
    assert isinstance(run.stage.latency.ttft.ok.p99, float)
    assert run.stage.latency.ttft.ok.p99 > 0.1


def stop_for(process: psutil.Process, seconds: float) -> None:
    """Take the processor away from a process for a while."""
    try:
        process.suspend()
        time.sleep(seconds)
        process.resume()
    except psutil.NoSuchProcess:
        return


def worker_of(process: subprocess.Popen[str]) -> psutil.Process:
    """Return the client process of a bench, once it has started it."""
    bench, until = psutil.Process(process.pid), time.monotonic() + DEADLINE_S
    while time.monotonic() < until and process.poll() is None:
        for child in bench.children():
            if any("bench.worker" in word for word in child.cmdline()):
                return child
        time.sleep(0.01)
    raise AssertionError("no worker was started")


@pytest.mark.parametrize(
    ("args", "after_s"),
    [
        (("--warmup=20s", "--concurrency=2", "--duration=20s"), 1.0),
        (("--warmup=0", "--concurrency=2", "--duration=20s"), 1.0),
        (("--concurrency=3", "--requests=3", "--output-tokens=5000"), 1.0),  # one long drain
    ],
    ids=["warm-up", "measure", "drain"],
)
def test_ctrl_c_leaves_a_result_that_can_be_read(
    tmp_path: Path, args: tuple[str, ...], after_s: float
) -> None:
    out = tmp_path / "out"

    with mock_process("--ttft=10ms", "--itl=10ms") as url:
        process = start_bench(url, out, *SMALL, *args, "--drain=1s")
        worker_of(process)
        time.sleep(after_s)  # somewhere in the phase: which moment makes no difference
        process.send_signal(signal.SIGINT)
        run = finish_bench(process, out)

    assert run.exit_code == 130, run.messages
    assert run.result.exit_code == 130
    assert "Traceback" not in run.messages


def test_two_ctrl_c_stop_at_once(tmp_path: Path) -> None:
    out = tmp_path / "out"

    with mock_process("--fault=100%:hang", "--spare=9") as url:
        process = start_bench(url, out, *SMALL, "--concurrency=2", "--duration=60s", "--drain=60s")
        worker_of(process)
        time.sleep(1.0)
        process.send_signal(signal.SIGINT)
        time.sleep(0.5)
        began = time.monotonic()
        process.send_signal(signal.SIGINT)
        run = finish_bench(process, out)

    assert run.exit_code == 130, run.messages
    assert time.monotonic() - began < 30  # and not the drain's minute
    assert read_result(out / "result.json").exit_code == 130


def seeded(url: str, out: Path, *args: str) -> BenchRun:
    lengths = ("--input-tokens=uniform:40..90", "--output-tokens=uniform:2..9")
    rate = ("--rate=30", "--duration=1s", "--max-errors=100%", "--protocol=completions")
    return run_bench(url, out, "--seed=5", *rate, *lengths, *args)


def test_the_same_seed_gives_the_same_lengths_and_schedule(tmp_path: Path) -> None:
    with mock_process(*QUICK, "--prefix-cache") as url:
        runs = [seeded(url, tmp_path / str(n), "--prefix-cache=avoid") for n in range(2)]

    plans = [
        [
            (each.index, each.sched - run.requests[0].sched, each.planned_input_tokens,
             each.planned_output_tokens)
            for each in run.requests
        ]
        for run in runs
    ]  # fmt: skip
    assert plans[0] == plans[1]
    assert len({length for _, _, length, _ in plans[0]}) > 5
    # Their first tokens differ: the second run meets a cache that knows nothing of it.
    assert {each.cached_tokens for run in runs for each in run.requests} == {0}


def test_with_a_cache_allowed_two_runs_send_identical_inputs(tmp_path: Path) -> None:
    with mock_process(*QUICK, "--prefix-cache") as url:
        _, second = (seeded(url, tmp_path / str(n), "--prefix-cache=allow") for n in range(2))

    for each in second.requests:
        assert each.input_tokens is not None
        assert each.cached_tokens == each.input_tokens // 16 * 16
    assert second.stage.tokens.cached_fraction is not None
    assert second.stage.tokens.cached_fraction > 0.5


def test_a_killed_run_leaves_no_half_written_file(tmp_path: Path) -> None:
    out = tmp_path / "out"

    with mock_process(*QUICK) as url:
        process = start_bench(
            url, out, *SMALL, "--concurrency=2,3", "--duration=1s", "--cooldown=0"
        )
        worker = worker_of(process)
        until = time.monotonic() + DEADLINE_S
        listed = out / "requests.jsonl"
        while not (listed.exists() and listed.stat().st_size) and time.monotonic() < until:
            time.sleep(0.01)
        process.kill()
        finish_bench(process, out)
        psutil.wait_procs([worker], timeout=DEADLINE_S)

    assert not worker.is_running()
    assert list(read_requests(out / "requests.jsonl"))
    if (out / "result.json").exists():
        read_result(out / "result.json")
