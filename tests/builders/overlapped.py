"""A device for `OverlappedEngine` that counts: what it samples is its own until it is fetched.

It also holds the engine to its word about blocks: none passes to another sequence, and none is
zeroed, while a launched step that holds it hasn't been fetched.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence as Rows
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from tests.builders.engine import CountingRunner, engine_config
from tests.builders.guided import ChanceRunner, guided_config
from tgi_cli.runtime.engine.overlapped import OverlappedEngine
from tgi_cli.runtime.engine.plan import StepPlan
from tgi_cli.runtime.engine.runner import ScorePrompt
from tgi_cli.runtime.engine.sampling.sampler import SampledToken, Sampler, SamplerConfig
from tgi_cli.runtime.engine.sequence import PENDING, Sequence
from tgi_cli.runtime.layers.head import Scores


class OnDevice:
    """Makes a runner of tokens one whose tokens stay on the device, and checks who has which block.

    `log` is launches and fetches.
    """

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.log: list[tuple[str, int]] = []  # and the number of the step
        self.num_steps = 0
        self.last_ids: dict[int, int] = {}  # by row: "on the device"
        self.running: dict[int, dict[int, int]] = {}  # blocks of launched steps, and whose
        self.fails_fetch: list[Exception] = []  # what the next fetches raise
        self._rows_sampled: list[int] = []

    def known(self, seq: Sequence) -> Sequence:
        """Return a sequence as the device sees it."""
        if seq.token_ids[-1] != PENDING:
            return seq
        seen = copy.copy(seq)
        seen.token_ids = [*seq.token_ids[:-1], self.last_ids[seq.row]]
        return seen

    def run(self, plan: StepPlan, score_prompt: ScorePrompt | None = None) -> Scores:
        held = {block: c.seq.request_id for c in plan.chunks for block in c.new_blocks}
        for blocks in self.running.values():
            for block, owner in held.items():
                assert blocks.get(block, owner) == owner, f"block {block} is in use"
        self._rows_sampled = [chunk.seq.row for chunk in plan.chunks if chunk.is_last]
        chunks = [replace(chunk, seq=self.known(chunk.seq)) for chunk in plan.chunks]
        scores = super().run(replace(plan, chunks=chunks), score_prompt)  # type: ignore[misc]
        self.num_steps += 1
        self.log.append(("run", self.num_steps))
        self.running[self.num_steps] = {
            block: seq.request_id for seq in plan.sequences for block in seq.block_table
        }
        return scores  # type: ignore[no-any-return]

    def sampled(self) -> int:
        """Note that the last run's sampler is launched; return the number of the step."""
        self.log.append(("launch", self.num_steps))
        return self.num_steps

    def end(self, step: int) -> None:
        """Note that a step has been waited for."""
        self.log.append(("fetch", step))
        del self.running[step]

    def recover(self, exc: Exception) -> bool:
        self.running.clear()  # it waits
        return super().recover(exc)  # type: ignore[misc, no-any-return]

    def keep(self, token_ids: Tensor) -> None:
        self.last_ids.update(zip(self._rows_sampled, token_ids.tolist(), strict=True))

    def clear_blocks(self, block_ids: list[int]) -> None:
        in_use = {block for blocks in self.running.values() for block in blocks}
        assert not in_use & set(block_ids)
        super().clear_blocks(block_ids)  # type: ignore[misc]


class LaunchingCounter(OnDevice, CountingRunner):
    pass


class LaunchingChances(OnDevice, ChanceRunner):
    pass


class _Samples:
    def __init__(self, runner: OnDevice, step: int, tokens: list[SampledToken]) -> None:
        self.token_ids = torch.tensor([token.token_id for token in tokens])
        self._runner = runner
        self._step = step
        self._tokens = tokens

    def fetch(self) -> list[SampledToken]:
        if self._runner.fails_fetch:
            raise self._runner.fails_fetch.pop()
        if self._step in self._runner.running:  # else a failure has waited for it
            self._runner.end(self._step)
        return self._tokens


class LaunchingSampler(Sampler):
    """`Sampler`, which leaves its tokens on the device unless a row is watermarked."""

    def __init__(self, config: SamplerConfig, runner: OnDevice) -> None:
        super().__init__(config)
        self._runner = runner
        self.fails: list[Exception] = []  # what the next launches raise

    def needs_host(self, seq: Sequence) -> bool:
        return seq.sampling.watermark

    def sample(
        self,
        scores: Scores,
        sequences: Rows[Sequence],
        bitmasks: Rows[Tensor | None] | None = None,
    ) -> list[SampledToken]:
        tokens = super().sample(scores, sequences, bitmasks)
        self._runner.end(self._runner.num_steps)
        return tokens

    def launch(
        self,
        scores: Scores,
        sequences: Rows[Sequence],
        bitmasks: Rows[Tensor | None] | None = None,
    ) -> _Samples:
        if self.fails:
            raise self.fails.pop()
        seen = [self._runner.known(seq) for seq in sequences]
        tokens = super().sample(scores, seen, bitmasks)
        samples = _Samples(self._runner, self._runner.sampled(), tokens)
        for index, seq in enumerate(sequences):
            if self.needs_host(seq):
                samples.token_ids[index] = -999  # the device never has it
        return samples


def make_overlapped(
    *, reserved_new_tokens: int = 1024, **changes: object
) -> tuple[OverlappedEngine, LaunchingCounter, LaunchingSampler]:
    config = engine_config(**changes)
    runner = LaunchingCounter(config.block_size)
    sampler = LaunchingSampler(SamplerConfig.of(config), runner)
    engine = OverlappedEngine(config, runner, sampler, reserved_new_tokens=reserved_new_tokens)
    return engine, runner, sampler


def make_overlapped_guided(
    *, seed: int = 0, closing: float = 2.0, reserved_new_tokens: int = 1024, **changes: Any
) -> tuple[OverlappedEngine, OnDevice]:
    config = guided_config(**changes)
    runner = LaunchingChances(seed, closing)
    sampler = LaunchingSampler(SamplerConfig.of(config), runner)
    engine = OverlappedEngine(
        config,
        runner,  # type: ignore[arg-type]
        sampler,
        reserved_new_tokens=reserved_new_tokens,
    )
    engine.warm_up()
    runner.log.clear()
    return engine, runner
