"""Where something runs out: memory, the disk, the patience of whoever started it."""

from __future__ import annotations

import asyncio
import resource
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.builders.bench_run import BenchRun, finish_bench, start_bench
from tests.builders.endpoint import answering_with
from tests.builders.mock import mock_process
from tgi_cli.runtime.bench.request_log import read_requests
from tgi_cli.runtime.bench.result_file import read_result

SMALL = (
    "--input-tokens=20",
    "--output-tokens=90",
    "--rate=60",
    "--duration=1s",
    "--arrival=constant",
)


def test_a_million_events_fit_in_200_mb(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "tests.builders.bench_million", str(tmp_path / "out")]

    run = subprocess.run(command, capture_output=True, text=True, check=True)

    num_tokens, num_gaps, peak_bytes = map(int, run.stdout.split())
    assert num_tokens == 1_000_000
    assert num_gaps == 999_000
    assert peak_bytes < 200_000_000


@pytest.mark.parametrize(
    ("room_bytes", "has_result"), [(1_000, False), (50_000, True)], ids=["no room", "some room"]
)
def test_a_full_disk_leaves_nothing_half_written(
    tmp_path: Path, room_bytes: int, has_result: bool
) -> None:
    out = tmp_path / "out"

    with mock_process("--ttft=5ms", "--itl=1ms") as url:
        process = start_bench(url, out, *SMALL)
        # No file may grow beyond it, which looks to a program as a disk that is full.
        resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (room_bytes, room_bytes))
        run = finish_bench(process, out)

    assert run.exit_code in (1, 5), run.messages  # 5: this machine was too busy to trust
    assert "File too large" in run.messages
    assert "Traceback" not in run.messages
    assert "rate=60" in run.report  # what was measured is shown all the same
    assert [path for path in out.iterdir() if path.suffix in (".part", ".tmp")] == []
    assert list(read_requests(out / "requests.jsonl")) == []
    assert (out / "result.json").exists() is has_result
    if has_result:
        assert read_result(out / "result.json").stages[0].counts.planned == 60


async def interrupted_while_asking(out: Path) -> BenchRun:
    """Interrupt a run whose first question is never answered."""
    async with answering_with([asyncio.Event()]) as endpoint:
        process = start_bench(endpoint.url, out, "--concurrency=2")
        await endpoint.was_asked.wait()
        process.send_signal(signal.SIGINT)
        return await asyncio.to_thread(finish_bench, process, out)


async def test_ctrl_c_before_the_first_stage_leaves_a_result_too(tmp_path: Path) -> None:
    run = await interrupted_while_asking(tmp_path / "out")

    assert run.exit_code == run.result.exit_code == 130, run.messages
    assert run.result.stages == []
    assert run.result.endpoint.protocol is None
    assert "Traceback" not in run.messages


def test_a_server_that_only_hangs_is_given_up(tmp_path: Path) -> None:
    out = tmp_path / "out"

    with mock_process("--fault=100%:hang") as url:
        process = start_bench(url, out, "--concurrency=2", "--first-token-timeout=300ms")
        run = finish_bench(process, out)

    assert run.exit_code == run.result.exit_code == 6, run.messages
    assert "first_token_timeout" in run.messages
    assert "first_token_timeout" in (run.result.exit_reason or "")
