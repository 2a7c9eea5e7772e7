"""The folder of a run: written stage by stage, so that a run that is killed leaves what it had.

Each file is written beside its place and moved there: a disk that fills up leaves no half file.
Spec: bench.md section 13.
"""

from __future__ import annotations

import contextlib
import os
import re
import time
from pathlib import Path

from tgi_cli.runtime.bench.measures import measured, metric_values
from tgi_cli.runtime.bench.records import StageRecord
from tgi_cli.runtime.bench.report import hdr_files
from tgi_cli.runtime.bench.report.csv_file import render_csv
from tgi_cli.runtime.bench.report.html import render_html
from tgi_cli.runtime.bench.request_log import append_requests
from tgi_cli.runtime.bench.result import Result, Stage
from tgi_cli.runtime.bench.result_file import write_result

_HDR_METRICS = ("ttft", "tpot", "itl", "e2e")
_UNSAFE = re.compile(r"[^A-Za-z0-9._=,-]+")


def default_folder(model: str | None, now: time.struct_time) -> str:
    """Return `bench-YYYYmmdd-HHMMSS-<model>`."""
    name = _UNSAFE.sub("-", (model or "model").rstrip("/").rpartition("/")[2]).strip(".-")
    return f"bench-{time.strftime('%Y%m%d-%H%M%S', now)}-{name or 'model'}"


def hdr_of(record: StageRecord) -> dict[str, str]:
    """Return the compressed histograms of a stage; none without the library."""
    if not hdr_files.is_available():
        return {}
    values = metric_values(measured(record))
    return {name: hdr_files.encode(values[name]) for name in _HDR_METRICS if len(values[name])}


class Outputs:
    """Raises `OSError` where the disk is full or the folder can't be written."""

    def __init__(self, folder: Path, run_toml: str) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        (folder / "requests.jsonl").write_bytes(b"")
        _write_whole(folder / "run.toml", run_toml)

    def add_stage(self, record: StageRecord, stage: Stage, wall_start_s: float) -> None:
        """Keep the requests of a stage, and its histograms; `wall_start_s` is the run's start."""
        append_requests(self.folder / "requests.jsonl", record)
        if not hdr_files.is_available():
            return
        folder = self.folder / "hdr"
        folder.mkdir(exist_ok=True)
        values = metric_values(measured(record))
        name = _UNSAFE.sub("-", stage.key) + (f".{stage.repeat + 1}" if stage.repeat else "")
        start_s, stop_s = (wall_start_s + at / 1e9 for at in (record.w0, record.w1))
        for metric in _HDR_METRICS:
            if len(values[metric]):
                hdr_files.write_files(folder, f"{name}.{metric}", values[metric], start_s, stop_s)

    def write(self, result: Result) -> None:
        """Write everything that is made of the result, in place of what was there."""
        write_result(self.folder / "result.json", result)
        _write_whole(self.folder / "summary.csv", render_csv(result))
        _write_whole(self.folder / "report.html", render_html(result))


def _write_whole(path: Path, text: str) -> None:
    beside = path.with_name(f"{path.name}.{os.getpid()}.part")
    try:
        beside.write_text(text, encoding="utf-8")
        beside.replace(path)
    except OSError:
        with contextlib.suppress(OSError):
            beside.unlink()
        raise
