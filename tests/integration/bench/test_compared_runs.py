"""`compare` of real runs: one server twice is never worse than itself, a slower one is."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.builders.bench_run import run_bench
from tests.builders.mock import mock_process

LOAD = ("--concurrency=2", "--requests=20", "--repeat=5", "--cooldown=0", "--seed=7")
LENGTHS = ("--input-tokens=20", "--output-tokens=20")


def measured(folder: Path, slowdown: float) -> Path:
    """Run the load against a mock whose every delay is stretched; return the run's folder."""
    pace = (f"--ttft={round(40 * slowdown)}ms", f"--itl={round(10_000 * slowdown)}us")
    with mock_process(*pace) as url:
        run = run_bench(url, folder, *LOAD, *LENGTHS)
    assert run.exit_code == 0, run.messages
    return folder


def compared(a: Path, b: Path) -> tuple[int, dict[str, str]]:
    """Return the exit code of `tgi bench compare` and each metric's verdict."""
    command = (sys.executable, "-m", "tgi_cli", "bench", "compare", str(a), str(b))
    run = subprocess.run(
        [*command, "--format=json", "--fail-on=worse"], capture_output=True, text=True, check=False
    )
    [comparison] = json.loads(run.stdout)
    verdicts = {
        one["metric"]: one["verdict"] for pair in comparison["pairs"] for one in pair["metrics"]
    }
    return run.returncode, verdicts


@pytest.mark.perf
def test_a_tenth_slower_is_worse_and_the_same_server_is_not(tmp_path: Path) -> None:
    first, again, slower = (
        measured(tmp_path / name, slowdown)
        for name, slowdown in (("first", 1.0), ("again", 1.0), ("slower", 1.1))
    )

    same_code, same = compared(first, again)
    slower_code, worse = compared(first, slower)

    assert same_code == 0
    assert set(same.values()) <= {"same", "unclear"}
    assert slower_code == 7
    for metric in ("out_tok_s", "ttft.p50", "itl.p50", "e2e.p50"):
        assert worse[metric] == "worse", worse
