"""The demo model through a whole engine: tokens a second, decoding and prefilling."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator

from tgi_cli.runtime.config.memory import BLOCK_SIZE
from tgi_cli.runtime.config.resolved import EngineConfig
from tgi_cli.runtime.engine.engine import Engine
from tgi_cli.runtime.engine.gpu_parts import PARTS
from tgi_cli.runtime.engine.load_gpu import load, open_gpu
from tgi_cli.runtime.hub.locate import locate_model
from tgi_cli.runtime.ipc.messages import NewRequest, StepOutput
from tgi_cli.runtime.platforms import cpu
from tgi_cli.runtime.types import SamplingParams

Row = tuple[str, ...]  # of the table in gpu_kernels.py
BATCHES = (1, 8, 32)
_PROMPT_TOKENS = 1000
_SHORT_PROMPT = 16
_NEW_TOKENS = 128

_MAX_TOKENS = 2048  # of a request


def start() -> tuple[Engine, int]:
    """Load the demo model as `tgi serve` does on this machine's GPU; return its vocabulary, too."""
    num_threads = len(os.sched_getaffinity(0))
    cpu.set_num_threads(num_threads)
    located = locate_model("demo")
    config = EngineConfig(
        model=located.config,
        weights=located.weights,
        eos_token_ids=(),
        device="cuda",
        dtype="float16",
        kv_cache_dtype="float16",
        block_size=BLOCK_SIZE,
        num_blocks=max(BATCHES) * _MAX_TOKENS // BLOCK_SIZE,
        max_step_tokens=4096,
        max_running=max(BATCHES),
        max_total_tokens=_MAX_TOKENS,
        num_threads=num_threads,
        cuda_graphs=BATCHES,
    )
    gpu = open_gpu()
    gpu.empty_cache()  # of what ran before: the cache is sized by what is in use
    return load(config, gpu, PARTS).engine, located.config.vocab_size


Clock = Callable[[], float]  # seconds


class EngineBenchmark:
    """Each measurement is made twice, and the second counts: the first one compiles."""

    def __init__(self, engine: Engine, vocab_size: int, clock: Clock = time.perf_counter) -> None:
        self._engine = engine
        self._vocab_size = vocab_size
        self._clock = clock
        self._num_requests = 0

    def rows(self) -> Iterator[Row]:
        for batch in BATCHES:
            for _ in range(2):
                row = self._decode(batch)
            yield row
        for _ in range(2):
            row = self._prefill()
        yield row

    def _decode(self, batch: int) -> Row:
        waiting = {self._add(_SHORT_PROMPT, _NEW_TOKENS) for _ in range(batch)}
        while waiting:
            waiting -= {output.request_id for output in self._step().outputs}
        num_tokens, num_steps, seconds = self._run_to_end()
        return _row(f"decode, {batch} at once", num_tokens, num_steps, seconds)

    def _prefill(self) -> Row:
        self._add(_PROMPT_TOKENS, 1)
        _, num_steps, seconds = self._run_to_end()
        return _row(f"prefill, {_PROMPT_TOKENS} tokens", _PROMPT_TOKENS, num_steps, seconds)

    def _add(self, num_tokens: int, max_new_tokens: int) -> int:
        """Add a request whose prompt begins as no other's, so that none of it is cached."""
        self._num_requests += 1
        seed = 7919 * self._num_requests
        prompt = [(seed + 31 * i) % self._vocab_size for i in range(num_tokens)]
        self._engine.add(
            NewRequest(
                self._num_requests, prompt, max_new_tokens, SamplingParams(), ignore_eos=True
            )
        )
        return self._num_requests

    def _step(self) -> StepOutput:
        output = self._engine.step()
        if output.failures:
            raise RuntimeError(output.failures[0].message)
        return output

    def _run_to_end(self) -> tuple[int, int, float]:
        """Return the tokens that came, the steps that it took, and the seconds."""
        start, num_tokens, num_steps = self._clock(), 0, 0
        while self._engine.has_work:
            num_tokens += sum(len(sequence.token_ids) for sequence in self._step().outputs)
            num_steps += 1
        return num_tokens, num_steps, self._clock() - start


def _row(name: str, num_tokens: int, num_steps: int, seconds: float) -> Row:
    """Return microseconds a step, and tokens a second."""
    rate = f"{num_tokens / seconds:,.0f} tokens/s"
    return "engine, demo model", name, "-", f"{1e6 * seconds / num_steps:.3g}", "-", "-", "-", rate
