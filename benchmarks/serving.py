"""Output tokens/s, TTFT and TPOT of `tgi serve` beside other servers, on the same work.

    tgi, transformers, vllm   the demo model's weights as fp16 numbers, computed in fp32
    tgi-gguf, llama.cpp       its GGUF file, on the file's own grid
    generate                  transformers in process: one padded batch, no HTTP at all

All with the same number of threads. Every repetition runs every server once at every
concurrency, in a rotating order, and medians are compared, since machines are noisy; all but the
one that is measured are held still. `peers.py` installs and starts them.

Needs the extra `bench` (transformers with its server). `--dtype bfloat16` gives the peers bf16
arithmetic.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from pathlib import Path

from tokenizers import Tokenizer

from benchmarks import peers
from benchmarks.export_demo import export_demo
from benchmarks.load import run_batch
from benchmarks.prompts import make_prompts
from tgi_cli.runtime.hub.locate import locate_model


@dataclass(frozen=True, slots=True)
class Result:
    tokens_per_s: float
    ttft_s: float
    tpot_s: float


@dataclass(slots=True)
class Runner:
    """A server to measure: `run` sends the prompts together."""

    name: str
    run: Callable[[list[str]], Result]
    results: dict[int, list[Result]] = field(default_factory=dict)


def main(argv: list[str]) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks serving")
    parser.add_argument("--repetitions", type=int, default=3)
    parser.add_argument("--concurrency", type=int, nargs="+", default=[1, 8, 32])
    parser.add_argument("--prompt-tokens", type=int, default=128)
    parser.add_argument("--new-tokens", type=int, default=64)
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--dtype", default="float32", help="arithmetic of the peers")
    parser.add_argument(
        "--servers",
        nargs="+",
        choices=[*peers.NAMES, "generate"],
        default=["tgi", "generate", "transformers"],
        help="the first one is compared with the others",
    )
    args = parser.parse_args(argv)

    with tempfile.TemporaryDirectory() as name, ExitStack() as stack:
        folder = Path(name)
        export_demo(folder)
        tokenizer = Tokenizer.from_file(f"{folder}/tokenizer.json")
        count = max(args.concurrency) + args.repetitions * sum(args.concurrency)
        prompts = make_prompts(tokenizer, count, args.prompt_tokens)
        runners = [_start(name, folder, args, stack) for name in args.servers]
        _measure(runners, prompts, args.concurrency, args.repetitions)
    _report(runners, args)


def _start(name: str, folder: Path, args: argparse.Namespace, stack: ExitStack) -> Runner:
    if name == "generate":
        worker = stack.enter_context(_generate_worker(folder, args.dtype, args.threads))
        return Runner(name, partial(_in_process, worker, args.new_tokens))
    gguf = Path(locate_model("demo").weights.files[0])
    server = peers.start(name, folder, gguf, args.dtype, args.threads)
    stack.callback(server.end)
    return Runner(name, partial(_over_http, server, args.new_tokens))


def _measure(
    runners: list[Runner], prompts: list[str], concurrencies: list[int], repetitions: int
) -> None:
    fresh = iter(prompts)  # none is sent to a server twice: some keep what they have computed
    warm_up = list(islice(fresh, max(concurrencies)))
    for runner in runners:
        runner.run(warm_up)  # allocations, lazily loaded code
    for repetition in range(repetitions):
        for concurrency in concurrencies:
            batch = list(islice(fresh, concurrency))
            shift = repetition % len(runners)
            for runner in runners[shift:] + runners[:shift]:
                result = runner.run(batch)
                runner.results.setdefault(concurrency, []).append(result)
                print(
                    f"repetition {repetition} concurrency {concurrency} {runner.name}: "
                    f"{result.tokens_per_s:.1f} tokens/s",
                    file=sys.stderr,
                )


@contextmanager
def _generate_worker(folder: Path, dtype: str, threads: int) -> Iterator[subprocess.Popen[str]]:
    worker = subprocess.Popen(
        [sys.executable, "-m", "benchmarks.generate_worker", str(folder), dtype, str(threads)],
        env={**os.environ, "OMP_NUM_THREADS": str(threads), "OMP_WAIT_POLICY": "PASSIVE"},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    assert worker.stdout is not None
    worker.stdout.readline()
    try:
        yield worker
    finally:
        worker.kill()
        worker.wait(30)


def _over_http(server: peers.Server, num_new_tokens: int, prompts: list[str]) -> Result:
    with server.running():
        batch = asyncio.run(run_batch(server.url, server.model, prompts, num_new_tokens))
    return Result(
        batch.tokens_per_s,
        statistics.median(timing.ttft_s for timing in batch.timings),
        statistics.median(timing.tpot_s for timing in batch.timings),
    )


def _in_process(worker: subprocess.Popen[str], num_new_tokens: int, prompts: list[str]) -> Result:
    assert worker.stdin is not None
    assert worker.stdout is not None
    print(
        json.dumps({"prompts": prompts, "max_tokens": num_new_tokens}),
        file=worker.stdin, flush=True,
    )  # fmt: skip
    answer = json.loads(worker.stdout.readline())
    return Result(
        answer["num_tokens"] / answer["wall_s"],
        answer["ttft_s"],
        (answer["wall_s"] - answer["ttft_s"]) / (num_new_tokens - 1),
    )


def _report(runners: list[Runner], args: argparse.Namespace) -> None:
    print(f"\n{_machine()}, {args.threads} threads; {args.prompt_tokens} tokens in,")
    print(f"{args.new_tokens} out; peers in {args.dtype}; medians of {args.repetitions}.\n")
    print("| concurrency | server | output tokens/s | TTFT ms | TPOT ms | ours / theirs |")
    print("| --- | --- | --- | --- | --- | --- |")
    for concurrency in args.concurrency:
        ours = _median(runners[0], concurrency).tokens_per_s
        for runner in runners:
            median = _median(runner, concurrency)
            print(
                f"| {concurrency} | {runner.name} | {median.tokens_per_s:.1f} "
                f"| {median.ttft_s * 1e3:.0f} | {median.tpot_s * 1e3:.1f} "
                f"| {ours / median.tokens_per_s:.2f} |"
            )


def _median(runner: Runner, concurrency: int) -> Result:
    results = runner.results[concurrency]
    return Result(
        *(
            statistics.median(getattr(result, name) for result in results)
            for name in ("tokens_per_s", "ttft_s", "tpot_s")
        )
    )


def _machine() -> str:
    name = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text().splitlines():
            if line.startswith("model name"):
                name = line.split(":", 1)[1].strip()
                break
    return f"{name}, {len(os.sched_getaffinity(0))} cores"
