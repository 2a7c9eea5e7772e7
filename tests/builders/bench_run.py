"""`tgi bench` as a process of its own, and what it leaves behind."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from tgi_cli.runtime.bench.records import RequestRecord
from tgi_cli.runtime.bench.request_log import read_requests
from tgi_cli.runtime.bench.result import Result, Stage
from tgi_cli.runtime.bench.result_file import read_result

_TIMEOUT_S = 100.0


@dataclass
class BenchRun:
    folder: Path
    exit_code: int
    report: str  # stdout
    messages: str  # stderr

    @cached_property
    def result(self) -> Result:
        return read_result(self.folder / "result.json")

    @property
    def stage(self) -> Stage:
        """The only stage."""
        [stage] = self.result.stages
        return stage

    @cached_property
    def requests(self) -> list[RequestRecord]:
        """The requests of the windows, by their planned time."""
        found = [record for _, _, record in read_requests(self.folder / "requests.jsonl")]
        measured = [record for record in found if record.phase == "measure"]
        return sorted(measured, key=lambda record: (record.sched, record.index))


def start_bench(url: str, folder: Path, *args: str) -> subprocess.Popen[str]:
    """Start `tgi bench`: quiet, one worker, no warm-up or tail unless `args` say otherwise."""
    usual = {"--warmup": "0", "--workers": "1", "--drain": "20s", "--prefix-cache": "allow"}
    given = {arg.partition("=")[0] for arg in args}
    options = [f"{name}={value}" for name, value in usual.items() if name not in given]
    return subprocess.Popen(
        [
            *(sys.executable, "-m", "tgi_cli", "bench", url, f"--out={folder}", "--quiet"),
            *("--no-tail-load", *options, *args),
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def finish_bench(process: subprocess.Popen[str], folder: Path) -> BenchRun:
    """Wait for its end."""
    try:
        report, messages = process.communicate(timeout=_TIMEOUT_S)
    finally:
        process.kill()
    return BenchRun(folder, process.returncode, report, messages)


def run_bench(url: str, folder: Path, *args: str) -> BenchRun:
    """Run `tgi bench` to its end."""
    return finish_bench(start_bench(url, folder, *args), folder)
