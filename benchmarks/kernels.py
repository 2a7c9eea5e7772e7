"""Matrix products beside torch's, and beside what the machine can do at most.

Every layer shape of the demo model and of a Llama of 1B parameters, 1 to 512 rows, with one thread
and with all. Ours and torch's fp32 product run in turns on the same numbers, into the same memory;
medians are compared. The peak is a loop of fused multiply-adds in registers (`limits.c`, compiled
here), the bandwidth what all threads read together of a buffer far larger than the caches.
"""

from __future__ import annotations

import argparse
import ctypes
import os
import statistics
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

from tgi_cli.runtime.platforms import cpu

SHAPES = {
    "demo qkv": (960, 576),
    "demo out": (576, 576),
    "demo gate-up": (3072, 576),
    "demo down": (576, 1536),
    "1B qkv": (3072, 2048),
    "1B out": (2048, 2048),
    "1B gate-up": (16384, 2048),
    "1B down": (2048, 8192),
}
ROWS = (1, 2, 4, 6, 8, 16, 32, 64, 128, 256, 512)
_BUFFER_BYTES = 1 << 29


def main(argv: list[str]) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks kernels")
    parser.add_argument("--repetitions", type=int, default=5)
    parser.add_argument("--rows", type=int, nargs="+", default=ROWS)
    args = parser.parse_args(argv)
    all_threads = len(os.sched_getaffinity(0))
    limits = _compile_limits()
    peak = statistics.median(limits.peak_flops() for _ in range(5))
    print(f"peak of one thread {peak / 1e9:.0f} GFLOP/s")
    for threads in sorted({1, all_threads}):
        print(f"{threads} threads read {_bandwidth(limits, threads) / 1e9:.1f} GB/s")
    cpu.prepare_process(all_threads)
    for threads in sorted({1, all_threads}):
        cpu.set_num_threads(threads)
        _compare(args, threads, peak)


def _compare(args: argparse.Namespace, threads: int, peak: float) -> None:
    import torch

    from tgi_cli.kernels import linear

    print(f"\n{threads} threads: ours / torch fp32 (GFLOP/s of ours, share of the peak)\n")
    print("| shape | weights | " + " | ".join(map(str, args.rows)) + " |")
    print("| --- | --- |" + " --- |" * len(args.rows))
    worst = dict.fromkeys(("fp32", "fp16"), 1000000000.0)
    for name, (num_out, num_in) in SHAPES.items():
        weight = torch.randn(num_out, num_in)
        packed = {"fp32": linear.pack(weight), "fp16": linear.pack(weight.half())}
        cells: dict[str, list[str]] = {dtype: [] for dtype in packed}
        for rows in args.rows:
            x = torch.randn(rows, num_in)
            y = torch.empty(rows, num_out)  # for all: fresh pages cost as much as a small product
            flops = 2.0 * rows * num_out * num_in
            calls: dict[str, Callable[[], object]] = {
                "torch": partial(torch.mm, x, weight.t(), out=y),
                **{
                    dtype: partial(linear.multiply, x, each, out=y)
                    for dtype, each in packed.items()
                },
            }
            times = _in_turns(calls, args.repetitions, max(1, int(2e9 / flops)))
            for dtype in packed:
                ratio = times["torch"] / times[dtype]
                worst[dtype] = min(worst[dtype], ratio)
                rate = flops / times[dtype]
                share = rate / (peak * threads)
                cells[dtype].append(f"{ratio:.2f} ({rate / 1e9:.0f}, {share:.2f})")
        for dtype, row in cells.items():
            print(f"| {name} {num_out}x{num_in} | {dtype} | " + " | ".join(row) + " |", flush=True)
    print(f"\nleast ratio: {worst}")


def _in_turns(
    calls: dict[str, Callable[[], object]], repetitions: int, count: int
) -> dict[str, float]:
    """Return the median seconds of each call, after a run of each that isn't counted."""
    count = min(count, 300)
    times: dict[str, list[float]] = {name: [] for name in calls}
    for repetition in range(repetitions + 1):
        for name, call in calls.items():
            start = time.perf_counter()
            for _ in range(count):
                call()
            if repetition:
                times[name].append((time.perf_counter() - start) / count)
    return {name: statistics.median(each) for name, each in times.items()}


def _compile_limits() -> ctypes.CDLL:
    with tempfile.TemporaryDirectory() as folder:
        library = Path(folder) / "limits.so"
        source = Path(__file__).with_name("limits.c")
        flags = ["-O3", "-march=native", "-shared", "-fPIC"]
        subprocess.run(["cc", *flags, str(source), "-o", str(library)], check=True)
        limits = ctypes.CDLL(str(library))
    limits.peak_flops.restype = ctypes.c_double
    limits.read_all.argtypes = [ctypes.c_void_p, ctypes.c_size_t]
    return limits


def _bandwidth(limits: ctypes.CDLL, threads: int) -> float:
    """Return the bytes that so many threads read a second, each its own part of one buffer."""
    import torch

    from tgi_cli.kernels.native.pages import zeros

    buffer = zeros((_BUFFER_BYTES // 4,), torch.int32)
    buffer += 1
    part = _BUFFER_BYTES // threads // 4096 * 4096
    rates = []
    for _ in range(5):
        workers = [
            threading.Thread(target=limits.read_all, args=(buffer.data_ptr() + i * part, part))
            for i in range(threads)
        ]
        start = time.perf_counter()
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
        rates.append(part * threads / (time.perf_counter() - start))
    return statistics.median(rates)
