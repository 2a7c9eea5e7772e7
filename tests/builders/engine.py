"""Builders for engine tests: sequences, a scheduler to step, an engine on a counter."""

from __future__ import annotations

import torch
from torch import Tensor

from tgi_cli.runtime.config.model_config import ModelConfig, WeightsSource
from tgi_cli.runtime.config.resolved import EngineConfig
from tgi_cli.runtime.engine.block_manager import BlockManager
from tgi_cli.runtime.engine.engine import Engine
from tgi_cli.runtime.engine.plan import StepPlan
from tgi_cli.runtime.engine.scheduler import Scheduler, SchedulerConfig
from tgi_cli.runtime.engine.sequence import Sequence
from tgi_cli.runtime.ipc.messages import NewRequest
from tgi_cli.runtime.types import SamplingParams

VOCAB_SIZE = 97


def request(
    request_id: int = 0,
    num_tokens: int = 5,
    max_new_tokens: int = 3,
    *,
    prompt_ids: list[int] | None = None,
    output_ids: list[int] | None = None,
    ignore_eos: bool = False,
    **sampling: object,
) -> NewRequest:
    ids = prompt_ids or [(7 * request_id + 3 * i) % VOCAB_SIZE for i in range(num_tokens)]
    return NewRequest(
        request_id,
        ids,
        max_new_tokens,
        SamplingParams(**sampling),  # type: ignore[arg-type]
        output_ids or [],
        ignore_eos=ignore_eos,
    )


def sequence(request_id: int = 0, num_tokens: int = 5, max_new_tokens: int = 3) -> Sequence:
    return Sequence(request(request_id, num_tokens, max_new_tokens))


class SteppedScheduler:
    """A scheduler whose steps give every sequence that is due the token 1."""

    def __init__(
        self,
        *,
        num_blocks: int = 16,
        block_size: int = 2,
        max_step_tokens: int = 64,
        max_running: int = 8,
        reserved_new_tokens: int = 1024,
    ) -> None:
        self.blocks = BlockManager(num_blocks, block_size)
        self.scheduler = Scheduler(
            SchedulerConfig(max_step_tokens, max_running, reserved_new_tokens), self.blocks
        )
        self._next_id = 0

    def add(self, num_tokens: int = 3, max_new_tokens: int = 4) -> Sequence:
        seq = sequence(self._next_id, num_tokens, max_new_tokens)
        self._next_id += 1
        self.scheduler.add(seq)
        return seq

    def run_step(self) -> StepPlan:
        plan = self.scheduler.plan_step()
        self.scheduler.check_integrity()
        due = [chunk.seq for chunk in plan.chunks if chunk.is_last]
        for chunk in plan.chunks:
            chunk.seq.num_computed_tokens = chunk.end
        for seq in due:
            seq.token_ids.append(1)
            if seq.num_remaining_tokens == 0:
                self.scheduler.remove(seq.request_id)
        self.scheduler.check_integrity()
        return plan


class CountingRunner:
    """Stands in for the model: the next token is the sum of all ids so far, modulo the vocabulary.

    It reads the ids that the plan says are computed, so a scheduler that skips or repeats one is
    found.
    """

    def __init__(self) -> None:
        self.plans: list[list[tuple[int, int, int]]] = []  # request, start, num_tokens
        self.cleared: list[int] = []
        self.fail_next = False
        self._sums: dict[int, tuple[int, int]] = {}  # computed tokens, their sum

    def run(self, plan: StepPlan) -> Tensor:
        self.plans.append([(c.seq.request_id, c.start, c.num_tokens) for c in plan.chunks])
        if self.fail_next:
            self.fail_next = False
            raise RuntimeError("made to fail by a test")
        rows = []
        for chunk in plan.chunks:
            seq = chunk.seq
            computed, total = (0, 0) if chunk.start == 0 else self._sums[seq.request_id]
            assert computed == chunk.start, "a token was skipped or computed twice"
            total += sum(seq.token_ids[chunk.start : chunk.end])
            self._sums[seq.request_id] = (chunk.end, total)
            if chunk.is_last:
                row = torch.zeros(VOCAB_SIZE)
                row[total % VOCAB_SIZE] = 5.0
                rows.append(row)
        return torch.stack(rows) if rows else torch.empty(0, VOCAB_SIZE)

    def clear_blocks(self, block_ids: list[int]) -> None:
        self.cleared += block_ids


def expected_tokens(prompt_ids: list[int], num_tokens: int) -> list[int]:
    """What `CountingRunner` makes an engine generate greedily."""
    ids = list(prompt_ids)
    for _ in range(num_tokens):
        ids.append(sum(ids) % VOCAB_SIZE)
    return ids[len(prompt_ids) :]


TINY_MODEL = ModelConfig(
    family="llama",
    vocab_size=VOCAB_SIZE,
    hidden_size=8,
    intermediate_size=16,
    num_layers=1,
    num_heads=2,
    num_kv_heads=1,
    head_dim=4,
    rms_norm_eps=1e-5,
    rope_theta=1e4,
    max_position_embeddings=64,
    checkpoint_dtype="float32",
)


def engine_config(**changes: object) -> EngineConfig:
    fields: dict[str, object] = {
        "model": TINY_MODEL,
        "weights": WeightsSource(kind="safetensors", files=(), num_bytes=0, num_parameters=0),
        "eos_token_ids": (),
        "device": "cpu",
        "dtype": "float32",
        "kv_cache_dtype": "float32",
        "block_size": 4,
        "num_blocks": 40,
        "max_step_tokens": 16,
        "max_running": 6,
        "max_total_tokens": 64,
        "num_threads": 1,
    }
    return EngineConfig(**{**fields, **changes})  # type: ignore[arg-type]


def make_engine(**changes: object) -> tuple[Engine, CountingRunner]:
    runner = CountingRunner()
    return Engine(engine_config(**changes), runner), runner  # type: ignore[arg-type]


def run_to_end(engine: Engine, max_steps: int = 10_000) -> dict[int, list[int]]:
    """Step until nothing is left; return the tokens of each request."""
    tokens: dict[int, list[int]] = {}
    for _ in range(max_steps):
        if not engine.has_work:
            return tokens
        output = engine.step()
        engine.check_integrity()
        assert not output.failures, output.failures
        for seq in output.outputs:
            tokens.setdefault(seq.request_id, []).extend(seq.token_ids)
    raise AssertionError("the engine makes no progress")
