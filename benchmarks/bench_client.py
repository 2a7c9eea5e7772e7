"""The load generator itself: what one worker of `tgi bench` sustains, and how true its numbers are.

The server is `tgi bench mock`, which writes down when each token left. Two loads, which a worker
must carry on one core (10,000 events/s; 1,000 requests/s), then one of 2,000 events/s whose
percentiles are laid beside the mock's own. Last, `tgi bench calibrate` with one worker: what it
does at most. Machines with less than four cores share them between client and server.
"""

from __future__ import annotations

import argparse
import json
import math
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any

_TGI = (sys.executable, "-m", "tgi_cli")
_LOADS = {  # name: requests/s, tokens of each, time between two tokens
    "10,000 events/s": (100, 100, "10ms"),
    "1,000 requests/s": (1000, 1, "0ms"),
    "2,000 events/s": (50, 40, "uniform:5ms..15ms"),
}


def main(argv: list[str]) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks bench_client")
    parser.add_argument("--duration", type=int, default=10, help="seconds of each load")
    parser.add_argument("--repetitions", type=int, default=3)
    args = parser.parse_args(argv)
    print(
        f"{'load':<18}{'lag p99 ms':>12}{'core %':>8}{'ttft added ms, p99':>20}{'err':>5}  verdict"
    )
    for name, (rate, num_tokens, itl) in _LOADS.items():
        for _ in range(args.repetitions):
            with tempfile.TemporaryDirectory() as folder:
                _run(name, Path(folder), rate, num_tokens, itl, args.duration)
    subprocess.run([*_TGI, "bench", "calibrate", "--max-workers", "1"], check=True)


def _run(name: str, folder: Path, rate: int, num_tokens: int, itl: str, duration_s: int) -> None:
    log, out, prompts = folder / "log", folder / "out", folder / "prompts.txt"
    prompts.write_text("Count from one to a hundred.\n")
    with _mock("--ttft", "uniform:20ms..60ms", "--itl", itl, "--log", str(log)) as url:
        subprocess.run(
            [
                *(*_TGI, "bench", url, f"--rate={rate}", f"--duration={duration_s}s"),
                *(f"--output-tokens={num_tokens}", "--arrival=poisson", "--warmup=2s"),
                *(f"--dataset={prompts}", f"--out={out}", "--protocol=chat", "--workers=1"),
                *("--metrics-url=off", "--no-tail-load", "--quiet"),
            ],
            stdout=subprocess.DEVNULL,
            check=False,  # a stage that can't be trusted says so in the table
        )
    [stage] = json.loads((out / "result.json").read_bytes())["stages"]
    measured = _lines(out / "requests.jsonl")
    true_ttft, true_itl = _truth(_lines(log), len(measured))
    own = stage["generator"]
    service = stage["latency"]["ttft"]["service"]
    added_s = service["p99"] - _percentile(true_ttft, 0.99)
    print(
        f"{name:<18}{own['lag']['p99'] * 1e3:12.2f}{own['cpu_max'] * 100:8.0f}"
        f"{added_s * 1e3:20.2f}{stage['counts']['failed']:5d}  {stage['verdict']}"
    )
    if "uniform" in itl:
        itls = stage["latency"]["itl"]["ok"]
        for title, reported, true in (("ttft", service, true_ttft), ("itl", itls, true_itl)):
            apart = (
                f"p{100 * share:g} "
                f"{(reported[f'p{100 * share:g}'] - _percentile(true, share)) * 1e3:+.2f}"
                for share in (0.5, 0.9, 0.99)
            )
            print(f"{'':<18}{title} beside the truth, ms: {', '.join(apart)}")


@contextmanager
def _mock(*args: str) -> Iterator[str]:
    process = subprocess.Popen(
        [*_TGI, "bench", "mock", "--port", "0", *args], stdout=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout is not None
        yield process.stdout.readline().split()[-1]
    finally:
        process.terminate()
        process.wait(30)


def _lines(path: Path) -> list[dict[str, Any]]:
    found = [json.loads(line) for line in path.read_text().splitlines()]
    return [each for each in found if each.get("phase", "measure") == "measure"]


def _truth(log: Sequence[dict[str, Any]], count: int) -> tuple[list[float], list[float]]:
    """Return the seconds to the first token and between two, of the last `count` requests."""
    served = sorted(log, key=lambda each: each["received"])[-count:]
    ttfts = [(each["writes"][0] - each["received"]) / 1e9 for each in served]
    itls = [(b - a) / 1e9 for each in served for a, b in pairwise(each["writes"])]
    return ttfts, itls


def _percentile(values: Sequence[float], share: float) -> float:
    return sorted(values)[max(math.ceil(share * len(values)), 1) - 1]
