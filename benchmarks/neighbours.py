"""Throughput beside busy neighbours: one process of lower priority on each core, never idle.

What a fair machine leaves is nearly all of it, since the neighbours give way; a server that hands
out fixed shares of work and spins at its barriers loses much more, because every barrier waits for
the thread that was pushed aside. `--nice 0` makes the neighbours equals: half is fair then.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from tokenizers import Tokenizer

from benchmarks import peers
from benchmarks.export_demo import export_demo
from benchmarks.load import run_batch
from benchmarks.prompts import make_prompts
from tgi_cli.runtime.hub.locate import locate_model

_BUSY = "while True: pass"


def main(argv: list[str]) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks neighbours")
    parser.add_argument("--repetitions", type=int, default=3)
    parser.add_argument("--concurrency", type=int, nargs="+", default=[1])
    parser.add_argument("--nice", type=int, default=19)
    parser.add_argument(
        "--servers", nargs="+", choices=peers.NAMES, default=["tgi-gguf", "llama.cpp"]
    )
    args = parser.parse_args(argv)
    num_cores = len(os.sched_getaffinity(0))
    rates: dict[tuple[str, int, bool], list[float]] = {}
    with tempfile.TemporaryDirectory() as name, ExitStack() as stack:
        folder = Path(name)
        export_demo(folder)
        tokenizer = Tokenizer.from_file(f"{folder}/tokenizer.json")
        prompts = make_prompts(tokenizer, max(args.concurrency), 128)
        gguf = Path(locate_model("demo").weights.files[0])
        servers = []
        for each in args.servers:
            servers.append(peers.start(each, folder, gguf, "float32", num_cores))
            stack.callback(servers[-1].end)
        for repetition in range(args.repetitions + 1):
            for is_busy in (False, True):
                with _neighbours(num_cores if is_busy else 0, args.nice):
                    for server in servers:
                        for concurrency in args.concurrency:
                            rate = _rate(server, prompts[:concurrency])
                            if repetition:  # the first is a warm-up
                                key = (server.name, concurrency, is_busy)
                                rates.setdefault(key, []).append(rate)
    print(f"{num_cores} neighbours at nice {args.nice}, medians of {args.repetitions}\n")
    print("| server | concurrency | alone, tokens/s | beside them | kept |")
    print("| --- | --- | --- | --- | --- |")
    for server in servers:
        for concurrency in args.concurrency:
            alone, beside = (
                statistics.median(rates[server.name, concurrency, is_busy])
                for is_busy in (False, True)
            )
            kept = beside / alone
            print(f"| {server.name} | {concurrency} | {alone:.1f} | {beside:.1f} | {kept:.2f} |")


def _rate(server: peers.Server, prompts: list[str]) -> float:
    with server.running():
        return asyncio.run(run_batch(server.url, server.model, prompts, 64)).tokens_per_s


@contextmanager
def _neighbours(count: int, nice: int) -> Iterator[None]:
    command = ["nice", "-n", str(nice), sys.executable, "-c", _BUSY]
    busy = [subprocess.Popen(command) for _ in range(count)]
    try:
        yield
    finally:
        for process in busy:
            process.kill()
            process.wait()
