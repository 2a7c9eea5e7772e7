"""Our kernels and our engine on this machine's GPU, in under eight minutes, in one table.

Every workload of `tools/kernels/ops` is held against its reference and timed beside torch, the
libraries that are installed, and the roof that its bytes and operations set; then the demo model
decodes and prefills as a server does. Without a GPU it says so and exits with 2; 1 is a wrong
number.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Callable, Iterator

from benchmarks import gpu_engine, gpu_kernels
from benchmarks.gpu_device import Stopwatch, find_gpu
from benchmarks.gpu_engine import Row
from benchmarks.gpu_kernels import Result
from tools.kernels.ops import all_workloads
from tools.kernels.text_table import print_table
from tools.kernels.workload import Workload


def main(argv: list[str]) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks gpu", description=__doc__)
    parser.add_argument("--only", default="", help="operations whose name contains this")
    parser.add_argument(
        "--seconds", type=float, default=330.0, help="for kernels; the rest isn't run"
    )
    parser.add_argument("--no-engine", action="store_true", help="kernels alone")
    parser.add_argument("--markdown", action="store_true", help="print tables for a page")
    args = parser.parse_args(argv)
    gpu = find_gpu()
    if isinstance(gpu, str):
        print(f"Not run: {gpu}.", file=sys.stderr)
        sys.exit(2)
    gpu_kernels.compile_all(args.only, gpu.arch, len(os.sched_getaffinity(0)))
    has_engine = not args.no_engine and not args.only
    exit_code = run(
        gpu,
        all_workloads(args.only),
        args.seconds,
        engine_rows=_engine_rows if has_engine else list,
        is_markdown=args.markdown,
    )
    sys.exit(exit_code)


def _engine_rows() -> list[Row]:
    engine, vocab_size = gpu_engine.start()
    return list(gpu_engine.EngineBenchmark(engine, vocab_size).rows())


def run(
    stopwatch: Stopwatch,
    workloads: list[Workload],
    seconds: float,
    *,
    engine_rows: Callable[[], list[Row]],
    is_markdown: bool,
) -> int:
    """Print the table; return the exit code."""
    deadline = time.monotonic() + seconds
    known = gpu_kernels.known_gpu(stopwatch.name)
    print(f"{stopwatch.name} ({stopwatch.arch}); roof: {known.name if known else 'not known'}\n")
    results = list(_until(deadline, gpu_kernels.run_all(workloads, stopwatch)))
    rows = [result.row(known) for result in results]
    num_failures = sum(result.failure is not None for result in results)
    try:
        rows += engine_rows()
    except Exception as exc:  # the kernels' rows shall be seen all the same
        print(f"The engine failed: {type(exc).__name__}: {exc}", file=sys.stderr)
        num_failures += 1
    print_table(gpu_kernels.COLUMNS, rows, is_markdown=is_markdown)
    print(f"\n{len(results)} workloads, {num_failures} failures")
    return 1 if num_failures else 0


def _until(deadline: float, results: Iterator[Result]) -> Iterator[Result]:
    for result in results:
        yield result
        if time.monotonic() > deadline:
            print("Time is up: the rest is left out.", file=sys.stderr)
            return
