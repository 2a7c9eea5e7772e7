"""Quantise the demo model by each method and print what each costs in quality, time and memory.

`tgi quantize` itself does the work and the measuring, in a process for each method; what is
quantised on load is measured by the same code. Here is only the table. KL is against the original
on text that nothing was calibrated on; "weights" are files, or memory of what has no file.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.export_demo import export_demo

METHODS: dict[str, list[str]] = {
    "int8": ["--method", "int8"],
    "rtn, symmetric": ["--method", "rtn", "--sym"],
    "rtn, asymmetric": ["--method", "rtn", "--asym"],
    "gptq, symmetric": ["--method", "gptq", "--sym"],
    "gptq, asymmetric": ["--method", "gptq", "--asym"],
    "awq": ["--method", "awq"],
    "awq+gptq": ["--method", "awq+gptq"],
}
_UNCALIBRATED = ("int8", "rtn, symmetric", "rtn, asymmetric")
ON_LOAD = {"nf4 on load": "bitsandbytes-nf4", "fp4 on load": "bitsandbytes-fp4"}


def main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(prog="benchmarks quantize_quality", description=__doc__)
    names = [*METHODS, *ON_LOAD]
    parser.add_argument("--methods", nargs="+", choices=names, default=names)
    parser.add_argument("--model", default="demo", help="a folder of safetensors, or demo")
    parser.add_argument("--group-size", default="64")
    parser.add_argument("--num-samples", default="16", help="calibration windows")
    parser.add_argument("--sequence-length", default="512", help="tokens of a window")
    parsed = parser.parse_args(arguments)
    print("| method | KL | KL p99 | perplexity | top-1 | weights, MB | time, s | peak, MB |")
    print("| --- | --- | --- | --- | --- | --- | --- | --- |")
    with tempfile.TemporaryDirectory() as folder:
        plain = parsed.model
        if plain == "demo" and set(ON_LOAD) & set(parsed.methods):
            export_demo(Path(folder))  # only safetensors are quantised on load
            plain = folder
        for name in parsed.methods:
            if name in ON_LOAD:
                row = _on_load_row(name, plain, parsed.sequence_length)
            else:
                row = _row(name, parsed)
            print(row, flush=True)


def _row(name: str, parsed: argparse.Namespace) -> str:
    options = ["--sequence-length", parsed.sequence_length]
    if name != "int8":
        options += ["--group-size", parsed.group_size]
    if name not in _UNCALIBRATED:
        options += ["--num-samples", parsed.num_samples]
    with tempfile.TemporaryDirectory() as folder:
        output = Path(folder, "model")
        command = ["tgi_cli", "quantize", parsed.model, str(output), *METHODS[name], *options]
        ran = _run(command)
        if ran.status:
            return ran.failure(name)
        report: dict[str, Any] = json.loads((output / "report.json").read_text())
    return ran.row(name, report["quality"], report["after"]["file_bytes"])


def _on_load_row(name: str, model: str, sequence_length: str) -> str:
    with tempfile.TemporaryDirectory() as folder:
        output = Path(folder, "report.json")
        command = ["benchmarks.quality_on_load", model, ON_LOAD[name], sequence_length, str(output)]
        ran = _run(command)
        if ran.status:
            return ran.failure(name)
        report: dict[str, Any] = json.loads(output.read_text())
    return ran.row(name, report["quality"], report["after"]["memory_bytes"])


@dataclass(frozen=True, slots=True)
class _Ran:
    status: int
    took_s: float
    peak_bytes: int

    def failure(self, name: str) -> str:
        return f"| {name} | failed with exit status {self.status} |"

    def row(self, name: str, quality: dict[str, Any], num_bytes: int) -> str:
        cells = [
            name,
            f"{quality['mean_kl']:.4f}",
            f"{quality['p99_kl']:.2f}",
            f"{quality['perplexity']:.2f} ({quality['original_perplexity']:.2f})",
            f"{quality['top1']:.3f}",
            f"{num_bytes / 1e6:.0f}",
            f"{self.took_s:.0f}",
            f"{self.peak_bytes / 1e6:.0f}",
        ]
        return f"| {' | '.join(cells)} |"


def _run(command: list[str]) -> _Ran:
    start = time.monotonic()
    process = subprocess.Popen([sys.executable, "-m", *command], stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    took_s = time.monotonic() - start
    return _Ran(os.waitstatus_to_exitcode(status), took_s, usage.ru_maxrss * 1024)
