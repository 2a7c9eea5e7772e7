"""Quantise the demo model by each method and print what each costs in quality, time and memory.

`tgi quantize` itself does the work and the measuring, in a process for each method; here is only
the table. KL is against the original on text that nothing was calibrated on.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

METHODS: dict[str, list[str]] = {
    "rtn, symmetric": ["--method", "rtn", "--sym"],
    "rtn": ["--method", "rtn", "--asym"],
    "gptq, symmetric": ["--method", "gptq", "--sym"],
    "gptq": ["--method", "gptq", "--asym"],
    "awq": ["--method", "awq"],
    "awq+gptq": ["--method", "awq+gptq"],
    "int8": ["--method", "int8"],
}


def main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(prog="benchmarks quantize_quality", description=__doc__)
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=list(METHODS))
    parser.add_argument("--model", default="demo")
    parser.add_argument("--group-size", default="64")
    parser.add_argument("--num-samples", default="16", help="calibration windows")
    parser.add_argument("--sequence-length", default="512", help="tokens of a window")
    parsed = parser.parse_args(arguments)
    print("| method | KL | KL p99 | perplexity | top-1 | file, MB | time, s | peak, MB |")
    print("| --- | --- | --- | --- | --- | --- | --- | --- |")
    for name in parsed.methods:
        options = ["--num-samples", parsed.num_samples, "--sequence-length", parsed.sequence_length]
        if name != "int8":
            options += ["--group-size", parsed.group_size]
        print(_row(name, parsed.model, METHODS[name] + options), flush=True)


def _row(name: str, model: str, options: list[str]) -> str:
    with tempfile.TemporaryDirectory() as folder:
        output = Path(folder, "model")
        command = [sys.executable, "-m", "tgi_cli", "quantize", model, str(output), *options]
        start = time.monotonic()
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        _, status, usage = os.wait4(process.pid, 0)
        took_s = time.monotonic() - start
        if status:
            return f"| {name} | failed with exit status {os.waitstatus_to_exitcode(status)} |"
        report: dict[str, Any] = json.loads((output / "report.json").read_text())
    quality, size = report["quality"], report["after"]["file_bytes"]
    cells = [
        name,
        f"{quality['mean_kl']:.4f}",
        f"{quality['p99_kl']:.2f}",
        f"{quality['perplexity']:.2f} ({quality['original_perplexity']:.2f})",
        f"{quality['top1']:.3f}",
        f"{size / 1e6:.0f}",
        f"{took_s:.0f}",
        f"{usage.ru_maxrss / 1e3:.0f}",
    ]
    return f"| {' | '.join(cells)} |"
