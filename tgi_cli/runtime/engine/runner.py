"""Run the model for one step: plan in, scores out. Owns the model, the KV cache and the tables."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Protocol

import torch
from torch import Tensor

from tgi_cli.runtime.config.resolved import EngineConfig
from tgi_cli.runtime.engine.batch import BatchBuilder, ModelInput
from tgi_cli.runtime.engine.plan import StepPlan
from tgi_cli.runtime.engine.sequence import Sequence
from tgi_cli.runtime.layers.attention import AttentionBackend
from tgi_cli.runtime.layers.context import ForwardContext
from tgi_cli.runtime.layers.head import Scores
from tgi_cli.runtime.layers.kv_cache import KVCache
from tgi_cli.runtime.layers.rope import RotaryTable
from tgi_cli.runtime.models.base import Model
from tgi_cli.runtime.models.weights import TORCH_DTYPES

ScorePrompt = Callable[[Sequence, Tensor], None]
"""Takes the logits [n, V] of the next n positions of a sequence's prompt."""

_SCORED_TOGETHER = 32  # rows, so that a long prompt's logits are never in memory at once


class StepRunner(Protocol):
    """What the engine asks of a runner."""

    def run(self, plan: StepPlan, score_prompt: ScorePrompt | None = None) -> Scores:
        """Return scores, valid until the next call, of each chunk that is its sequence's last."""
        ...

    def clear_blocks(self, block_ids: list[int]) -> None:
        """Zero blocks whose content must not reach their next owner."""
        ...

    def recover(self, exc: Exception) -> bool:
        """Make another try possible after a step raised `exc`; say if the same step may go now.

        Raises:
            EngineDiedError: nothing can be computed in this process any more.
        """
        ...


def rotary_table(config: EngineConfig, device: torch.device | None = None) -> RotaryTable:
    model = config.model
    return RotaryTable(
        model.head_dim, config.max_total_tokens, model.rope_theta, model.rope_scaling, device
    )


def kv_cache(config: EngineConfig, attention: AttentionBackend) -> KVCache:
    return KVCache(
        attention,
        num_layers=config.model.num_layers,
        num_blocks=config.num_blocks,
        num_kv_heads=config.model.num_kv_heads,
        head_dim=config.model.head_dim,
        dtype=TORCH_DTYPES[config.kv_cache_dtype],
    )


def scored_rows(batch: ModelInput, hidden: Tensor) -> Iterator[tuple[Sequence, Tensor]]:
    """Yield the final hidden states [n, hidden] that score prompts, a few rows at a time."""
    first = batch.num_last
    for seq, num_rows in batch.scored:
        for rows in torch.split(hidden[first : first + num_rows], _SCORED_TOGETHER):
            yield seq, rows
        first += num_rows


class Runner:
    def __init__(self, config: EngineConfig, model: Model, attention: AttentionBackend) -> None:
        self._model = model
        self._sliding_window = config.model.sliding_window
        assert config.block_size == attention.block_size, config.block_size
        self._attention = attention
        self._rotary = rotary_table(config)
        self._kv_cache = kv_cache(config, attention)
        self._batch = BatchBuilder(
            max_running=config.max_running,
            max_total_tokens=config.max_total_tokens,
            block_size=config.block_size,
        )

    @torch.inference_mode()
    def run(self, plan: StepPlan, score_prompt: ScorePrompt | None = None) -> Scores:
        """Compute the plan's chunks; return scores of those that are the last of theirs.

        `score_prompt` is called with the logits of prompts that are scored, some rows at a time.
        """
        batch = self._batch.build(plan)
        token_ids = torch.from_numpy(batch.token_ids)
        hidden = self._model.forward(token_ids, self._context(batch))
        for seq, rows in scored_rows(batch, hidden):
            assert score_prompt is not None, seq
            score_prompt(seq, self._model.logits(rows))
        return self._model.scores(hidden[: batch.num_last])

    def _context(self, batch: ModelInput) -> ForwardContext:
        cos, signed_sin = self._rotary.at(torch.from_numpy(batch.positions))
        tables = self._batch.block_tables
        attention = self._attention.plan(batch.spans, tables, None)
        windowed = attention
        if self._sliding_window is not None:
            windowed = self._attention.plan(batch.spans, tables, self._sliding_window)
        return ForwardContext(
            cos=cos,
            signed_sin=signed_sin,
            slot_mapping=torch.from_numpy(batch.slot_mapping),
            wanted=torch.from_numpy(batch.wanted),
            kv_cache=self._kv_cache,
            attention=attention,
            windowed_attention=windowed,
        )

    def clear_blocks(self, block_ids: list[int]) -> None:
        """Zero blocks whose content must not reach their next owner."""
        self._kv_cache.clear(block_ids)

    def recover(self, exc: Exception) -> bool:
        """Do nothing: what a failed step has taken is free again."""
        return False
