"""Decoding speed of the demo model by format of its weights, one request at a time.

The same fp16 folder, as it is and quantised while loading by each method that does so, and
checkpoints made of it by `tgi quantize` (`--checkpoint`), all in this process and with the same
threads. Every repetition decodes with each in turn, and medians are compared, since machines are
noisy. Prefill of a longer prompt is measured beside it.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from benchmarks.export_demo import export_demo
from tgi_cli.kernels.paged_attention import choose
from tgi_cli.runtime.config.quantization import OnLoad, Quantization
from tgi_cli.runtime.config.quantization.on_load import Method
from tgi_cli.runtime.config.resolved import EngineConfig
from tgi_cli.runtime.engine.engine import Engine
from tgi_cli.runtime.engine.runner import Runner
from tgi_cli.runtime.hub.locate import LocatedModel, locate_model
from tgi_cli.runtime.ipc.messages import NewRequest
from tgi_cli.runtime.models.loader import load_model
from tgi_cli.runtime.platforms import cpu
from tgi_cli.runtime.types import SamplingParams

METHODS: tuple[Method, ...] = ("eetq", "fp8", "bitsandbytes-nf4")
_PLAIN = "fp16"


@dataclass(slots=True)
class Measured:
    """One format's engine and what it has done, in tokens a second."""

    engine: Engine
    weights_bytes: int
    prefill: list[float] = field(default_factory=list)
    decode: list[float] = field(default_factory=list)


def main(argv: list[str]) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks quantized")
    parser.add_argument("--repetitions", type=int, default=7)
    parser.add_argument("--prompt-tokens", type=int, default=128)
    parser.add_argument("--new-tokens", type=int, default=48)
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--checkpoint", action="append", default=[], metavar="FOLDER")
    args = parser.parse_args(argv)

    cpu.prepare_process(args.threads)
    cpu.set_num_threads(args.threads)
    with tempfile.TemporaryDirectory() as name:
        export_demo(Path(name))
        located = locate_model(name)
        engines = {_PLAIN: _start(located, None, args.threads)}
        for method in METHODS:
            engines[method] = _start(located, OnLoad(method=method), args.threads)
    for folder in args.checkpoint:
        made = locate_model(folder)
        engines[Path(folder).name] = _start(made, made.weights.quantization, args.threads)
    for repetition in range(args.repetitions + 1):
        for measured in engines.values():
            prefill, decode = _run(measured.engine, repetition, args)
            if repetition:  # the first one isn't counted
                measured.prefill.append(prefill)
                measured.decode.append(decode)
    _report(engines, args)


def _start(located: LocatedModel, quantization: Quantization | None, threads: int) -> Measured:
    weights = msgspec.structs.replace(located.weights, quantization=quantization)
    config = EngineConfig(
        model=located.config,
        weights=weights,
        eos_token_ids=(),
        device="cpu",
        dtype="float16",
        kv_cache_dtype="float16",
        block_size=32,
        num_blocks=64,
        max_step_tokens=512,
        max_running=4,
        max_total_tokens=1024,
        num_threads=threads,
    )
    attention = choose(config.model.num_heads, config.model.num_kv_heads, config.model.head_dim)
    model = load_model(config.model, config.weights, config.dtype, attention)
    return Measured(Engine(config, Runner(config, model, attention)), model.num_bytes)


def _run(engine: Engine, repetition: int, args: argparse.Namespace) -> tuple[float, float]:
    """Return tokens a second of prefill, and of decoding."""
    prompt = [1000 + (7919 * repetition + 31 * i) % 40000 for i in range(args.prompt_tokens)]
    engine.add(NewRequest(repetition, prompt, args.new_tokens, SamplingParams(), ignore_eos=True))
    start = time.perf_counter()
    engine.step()
    middle = time.perf_counter()
    while engine.has_work:
        engine.step()
    end = time.perf_counter()
    return args.prompt_tokens / (middle - start), (args.new_tokens - 1) / (end - middle)


def _report(engines: dict[str, Measured], args: argparse.Namespace) -> None:
    print(f"\n{args.threads} threads, {args.prompt_tokens} tokens in, {args.new_tokens} out; ")
    print(f"medians of {args.repetitions}, tokens/s (times those of {_PLAIN}).\n")
    print("| weights | MB | decode | prefill |")
    print("| --- | --- | --- | --- |")
    base = [statistics.median(each) for each in (engines[_PLAIN].decode, engines[_PLAIN].prefill)]
    for name, measured in engines.items():
        rates = [statistics.median(each) for each in (measured.decode, measured.prefill)]
        cells = [
            f"{rate:.1f} ({rate / plain:.2f})" for rate, plain in zip(rates, base, strict=True)
        ]
        print(f"| {name} | {measured.weights_bytes / 1e6:.0f} | {' | '.join(cells)} |")
