"""Builders for engine tests: sequences, a scheduler to step, an engine on a counter."""

from __future__ import annotations

from typing import Any

import msgspec
import torch
from torch import Tensor

from tgi_cli.runtime.config.model_config import ModelConfig, WeightsSource
from tgi_cli.runtime.config.resolved import EngineConfig
from tgi_cli.runtime.engine.block_manager import BlockManager
from tgi_cli.runtime.engine.engine import Engine
from tgi_cli.runtime.engine.plan import Chunk, StepPlan
from tgi_cli.runtime.engine.runner import ScorePrompt
from tgi_cli.runtime.engine.scheduler import Scheduler, SchedulerConfig
from tgi_cli.runtime.engine.sequence import Sequence
from tgi_cli.runtime.ipc.messages import NewRequest
from tgi_cli.runtime.layers.head import Scores
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
    scores_prompt: bool = False,
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
        scores_prompt=scores_prompt,
    )


def sequence(
    request_id: int = 0,
    num_tokens: int = 5,
    max_new_tokens: int = 3,
    prompt_ids: list[int] | None = None,
    **changes: Any,
) -> Sequence:
    new = request(request_id, num_tokens, max_new_tokens, prompt_ids=prompt_ids)
    return Sequence(msgspec.structs.replace(new, **changes))


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
        prefix_caching: bool = False,
        **config: Any,
    ) -> None:
        self.blocks = BlockManager(num_blocks, block_size, prefix_caching=prefix_caching)
        self.scheduler = Scheduler(
            SchedulerConfig(max_step_tokens, max_running, reserved_new_tokens, **config),
            self.blocks,
        )
        self._next_id = 0

    def add(
        self, num_tokens: int = 3, max_new_tokens: int = 4, prompt_ids: list[int] | None = None
    ) -> Sequence:
        seq = sequence(self._next_id, num_tokens, max_new_tokens, prompt_ids)
        self._next_id += 1
        self.scheduler.add(seq)
        return seq

    def run_step(self) -> StepPlan:
        plan = self.scheduler.plan_step()
        self.scheduler.check_integrity()
        due = [chunk.seq for chunk in plan.chunks if chunk.is_last]
        for chunk in plan.chunks:
            chunk.seq.started = True
            chunk.seq.num_computed_tokens = chunk.end
        for seq in due:
            seq.num_sound_tokens = seq.num_computed_tokens
            seq.token_ids.append(1)
            if seq.num_remaining_tokens == 0:
                self.scheduler.remove(seq.request_id)
        self.scheduler.check_integrity()
        return plan


def scores_after(total: int) -> Tensor:
    """Return `CountingRunner`'s logits after ids of the sum `total`."""
    row = torch.zeros(VOCAB_SIZE)
    row[total % VOCAB_SIZE] = 5.0
    return row


class CountingRunner:
    """Stands in for the model: the next token is the sum of all ids so far, modulo the vocabulary.

    A slot of its KV cache holds a hash of all ids up to its position, and every step reads every
    slot of its sequences through their rows of block tables, as attention does. So a scheduler
    that skips a token, mixes up blocks or shares a prefix that isn't the same is found.
    """

    NOT_A_NUMBER = -1

    def __init__(self, block_size: int = 4) -> None:
        self.plans: list[list[tuple[int, int, int]]] = []  # request, start, num_tokens
        self.cleared: list[int] = []
        self.recovered: list[Exception] = []
        self.fail_next = False
        self.raises_for: set[int] = set()  # requests
        self.max_tokens = 1 << 30  # of a step; more are out of memory
        self.not_finite_for: set[int] = set()  # requests whose steps give NaN, in the cache too
        self._block_size = block_size
        self.slots: dict[int, int] = {}
        self._rows: dict[int, list[int]] = {}

    def run(self, plan: StepPlan, score_prompt: ScorePrompt | None = None) -> Scores:
        self.plans.append([(c.seq.request_id, c.start, c.num_tokens) for c in plan.chunks])
        rows = [
            row for chunk in plan.chunks if (row := self._attend(chunk, score_prompt)) is not None
        ]
        if self.fail_next:
            self.fail_next = False
            raise RuntimeError("made to fail by a test")
        if sum(chunk.num_tokens for chunk in plan.chunks) > self.max_tokens:
            raise MemoryError("made to fail by a test")
        if self.raises_for & {chunk.seq.request_id for chunk in plan.chunks}:
            raise RuntimeError("made to fail by a test")
        return Scores.of(torch.stack(rows) if rows else torch.empty(0, VOCAB_SIZE))

    def _attend(self, chunk: Chunk, score_prompt: ScorePrompt | None) -> Tensor | None:
        """Write the chunk's slots and read all; return logits if it is the sequence's last."""
        seq, size = chunk.seq, self._block_size
        table = self._rows.setdefault(seq.row, [])
        first = len(seq.block_table) - len(chunk.new_blocks)
        table[first:] = chunk.new_blocks
        is_nan = seq.request_id in self.not_finite_for
        so_far = 0
        for position, token_id in enumerate(seq.token_ids[: chunk.end]):
            so_far = hash((so_far, token_id))
            slot = table[position // size] * size + position % size
            if position >= chunk.start:
                self.slots[slot] = self.NOT_A_NUMBER if is_nan else so_far
            is_nan = is_nan or self.slots[slot] == self.NOT_A_NUMBER
            assert is_nan or self.slots[slot] == so_far, f"{seq}: position {position}"
        past_end = chunk.end % size
        if past_end:  # what is masked must be a number all the same
            last = table[chunk.end // size] * size
            masked = range(last + past_end, last + size)
            is_nan = is_nan or any(self.slots.get(slot) == self.NOT_A_NUMBER for slot in masked)
        if to_score := chunk.scoring_positions:
            assert score_prompt is not None
            rows = [scores_after(sum(seq.token_ids[: position + 1])) for position in to_score]
            score_prompt(seq, torch.stack(rows))
        if not chunk.is_last:
            return None
        return scores_after(sum(seq.token_ids[: chunk.end])) + (float("nan") if is_nan else 0.0)

    def recover(self, exc: Exception) -> bool:
        self.recovered.append(exc)
        return False

    def clear_blocks(self, block_ids: list[int]) -> None:
        self.cleared += block_ids
        for block in block_ids:
            for slot in range(block * self._block_size, (block + 1) * self._block_size):
                self.slots.pop(slot, None)


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


def make_engine(
    *, reserved_new_tokens: int = 1024, **changes: object
) -> tuple[Engine, CountingRunner]:
    config = engine_config(**changes)
    runner = CountingRunner(config.block_size)
    engine = Engine(config, runner, reserved_new_tokens=reserved_new_tokens)
    return engine, runner


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
