"""Output tokens/s, TTFT and TPOT of `tgi serve` beside transformers, on the same work.

Peers: transformers `generate` on one padded batch (in process: no HTTP at all) and `transformers
serve` with continuous batching (HTTP, streamed, as ours is). All serve the demo model's weights,
as fp16 values computed in fp32, with the same number of threads. Every repetition runs every peer
once at every concurrency, in a rotating order, and medians are compared, since machines are
noisy.

Needs the extra `bench` (transformers with its server). `--dtype bfloat16` gives the peers bf16
arithmetic.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import platform
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from tokenizers import Tokenizer

from benchmarks.export_demo import export_demo
from benchmarks.load import run_batch
from benchmarks.prompts import make_prompts

NUM_PROMPT_TOKENS = 128
NUM_NEW_TOKENS = 64
_START_TIMEOUT_S = 180.0


@dataclass(frozen=True, slots=True)
class Result:
    tokens_per_s: float
    ttft_s: float
    tpot_s: float


@dataclass(slots=True)
class Peer:
    name: str
    run: Callable[[list[str]], Result]
    process: subprocess.Popen[str]
    results: dict[int, list[Result]] = field(default_factory=dict)


def main(argv: list[str]) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks serving")
    parser.add_argument("--repetitions", type=int, default=3)
    parser.add_argument("--concurrency", type=int, nargs="+", default=[1, 8, 32])
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--dtype", default="float32", help="arithmetic of the peers")
    args = parser.parse_args(argv)

    with tempfile.TemporaryDirectory() as folder:
        export_demo(Path(folder))
        tokenizer = Tokenizer.from_file(f"{folder}/tokenizer.json")
        prompts = make_prompts(tokenizer, max(args.concurrency), NUM_PROMPT_TOKENS)
        peers = _start_peers(folder, args.dtype, args.threads)
        try:
            _measure(peers, prompts, args.concurrency, args.repetitions)
        finally:
            for peer in peers:
                peer.process.terminate()
                peer.process.wait(30)
    _report(peers, args)


def _measure(
    peers: list[Peer], prompts: list[str], concurrencies: list[int], repetitions: int
) -> None:
    for peer in peers:
        peer.run(prompts[:2])  # warm up: allocations, lazily loaded code
    for repetition in range(repetitions):
        for concurrency in concurrencies:
            shift = repetition % len(peers)
            for peer in peers[shift:] + peers[:shift]:
                result = peer.run(prompts[:concurrency])
                peer.results.setdefault(concurrency, []).append(result)
                print(
                    f"repetition {repetition} concurrency {concurrency} {peer.name}: "
                    f"{result.tokens_per_s:.1f} tokens/s",
                    file=sys.stderr,
                )


def _start_peers(folder: str, dtype: str, threads: int) -> list[Peer]:
    environment = {
        **os.environ,
        "OMP_NUM_THREADS": str(threads),
        "OMP_WAIT_POLICY": "PASSIVE",
        "HF_HUB_OFFLINE": "1",
        "TOKENIZERS_PARALLELISM": "false",
    }
    log = subprocess.DEVNULL

    port = _free_port()
    ours = subprocess.Popen(
        [sys.executable, "-m", "tgi_cli", "serve", "--model-id", folder, "--hostname",
        "127.0.0.1", "--port", str(port), "--cpu-threads", str(threads)], env=environment,
        stdout=log, stderr=log, text=True,
    )  # fmt: skip
    ours_url = f"http://127.0.0.1:{port}"
    _wait_for(f"{ours_url}/health", ours)

    port = _free_port()
    serve = subprocess.Popen(
        [str(Path(sys.executable).with_name("transformers")), "serve", folder,
        "--continuous-batching", "--device", "cpu", "--dtype", dtype, "--port", str(port)],
        env=environment, stdout=log, stderr=log, text=True,
    )  # fmt: skip
    serve_url = f"http://localhost:{port}"
    _wait_for(f"{serve_url}/health", serve)

    generate = subprocess.Popen(
        [sys.executable, "-m", "benchmarks.generate_worker", folder, dtype, str(threads)],
        env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True,
    )  # fmt: skip
    assert generate.stdout is not None
    generate.stdout.readline()
    return [
        Peer("tgi serve", lambda prompts: _over_http(ours_url, "tgi", prompts), ours),
        Peer("transformers generate", lambda prompts: _in_process(generate, prompts), generate),
        Peer("transformers serve", lambda prompts: _over_http(serve_url, folder, prompts), serve),
    ]


def _over_http(url: str, model: str, prompts: list[str]) -> Result:
    batch = asyncio.run(run_batch(url, model, prompts, NUM_NEW_TOKENS))
    return Result(
        batch.tokens_per_s,
        statistics.median(timing.ttft_s for timing in batch.timings),
        statistics.median(timing.tpot_s for timing in batch.timings),
    )


def _in_process(worker: subprocess.Popen[str], prompts: list[str]) -> Result:
    assert worker.stdin is not None
    assert worker.stdout is not None
    print(
        json.dumps({"prompts": prompts, "max_tokens": NUM_NEW_TOKENS}),
        file=worker.stdin, flush=True,
    )  # fmt: skip
    answer = json.loads(worker.stdout.readline())
    return Result(
        answer["num_tokens"] / answer["wall_s"],
        answer["ttft_s"],
        (answer["wall_s"] - answer["ttft_s"]) / (NUM_NEW_TOKENS - 1),
    )


def _free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
        return port


def _wait_for(url: str, process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + _START_TIMEOUT_S
    while time.monotonic() < deadline:
        if process.poll() is not None:
            sys.exit(f"The server of {url} ended with exit code {process.returncode}.")
        try:
            with urllib.request.urlopen(url, timeout=2):
                return
        except (urllib.error.URLError, OSError):
            time.sleep(0.2)
    sys.exit(f"{url} didn't answer within {_START_TIMEOUT_S:.0f} s.")


def _report(peers: list[Peer], args: argparse.Namespace) -> None:
    print(f"\n{_machine()}, {args.threads} threads; {NUM_PROMPT_TOKENS} tokens in,")
    print(f"{NUM_NEW_TOKENS} out; peers in {args.dtype}; medians of {args.repetitions}.\n")
    print("| concurrency | server | output tokens/s | TTFT ms | TPOT ms | ours / theirs |")
    print("| --- | --- | --- | --- | --- | --- |")
    for concurrency in args.concurrency:
        ours = _median(peers[0], concurrency).tokens_per_s
        for peer in peers:
            median = _median(peer, concurrency)
            print(
                f"| {concurrency} | {peer.name} | {median.tokens_per_s:.1f} "
                f"| {median.ttft_s * 1e3:.0f} | {median.tpot_s * 1e3:.1f} "
                f"| {ours / median.tokens_per_s:.2f} |"
            )


def _median(peer: Peer, concurrency: int) -> Result:
    results = peer.results[concurrency]
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
