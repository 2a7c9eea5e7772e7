"""Run the model on a GPU: plan in, scores out, and nothing waits.

    build the arrays ─► staging ─► token ids ─► model ─► scores
                                       ▲                   │ sampler
                                       └──── last ids ◄────┘

The id of a token that was sampled on the device and isn't known here yet is read from `last ids`,
by the row of its sequence. Everything is queued on the current stream, in the order of the steps:
what step n+1 uploads is copied when step n has read what it needs. Decode steps are graphs up to
the final hidden states (`cuda_graph.py`); head and sampler follow, for rows that are real.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tgi_cli.errors import EngineDiedError
from tgi_cli.runtime.config.resolved import EngineConfig
from tgi_cli.runtime.engine.batch import BatchBuilder, ModelInput, row_of_pending
from tgi_cli.runtime.engine.cuda_graph import DecodeGraphs
from tgi_cli.runtime.engine.plan import StepPlan
from tgi_cli.runtime.engine.runner import ScorePrompt, kv_cache, rotary_table, scored_rows
from tgi_cli.runtime.engine.staging import Staging, fetch
from tgi_cli.runtime.layers.attention import AttentionBackend
from tgi_cli.runtime.layers.context import ForwardContext
from tgi_cli.runtime.layers.head import Scores
from tgi_cli.runtime.models.base import Model
from tgi_cli.runtime.platforms.gpu import Gpu

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _Uploaded:
    """A `ModelInput` on the device."""

    token_ids: Tensor
    positions: Tensor
    slot_mapping: Tensor
    wanted: Tensor
    attention: Any
    windowed_attention: Any


class GpuRunner:
    def __init__(
        self,
        config: EngineConfig,
        model: Model,
        attention: AttentionBackend,
        gpu: Gpu,
        staging: Staging,
    ) -> None:
        assert config.block_size == attention.block_size, config.block_size
        self._model = model
        self._attention = attention
        self._gpu = gpu
        self._staging = staging
        self._vocab_size = config.model.vocab_size
        self._sliding_window = config.model.sliding_window
        self._rotary = rotary_table(config, gpu.device)
        self._kv_cache = kv_cache(config, attention)
        self._batch = BatchBuilder(
            max_running=config.max_running,
            max_total_tokens=config.max_total_tokens,
            block_size=config.block_size,
            table_dtype=np.int32,
        )
        staging.track(self._batch.block_tables, self._batch.take_changed_rows)
        self._last_ids = torch.zeros(config.max_running, dtype=torch.int64, device=gpu.device)
        self._last_rows = self._last_ids[:0]  # of `last ids`, that the last step has scores for
        self._graphs = DecodeGraphs(gpu)
        self._captured = torch.empty(0)  # final hidden states that a replay gives, of its rows
        self.has_run_out_of_memory = False

    @property
    def graph_sizes(self) -> list[int]:
        """Rows of the decode steps that are captured, ascending."""
        return self._graphs.sizes

    @torch.no_grad()
    def capture_graphs(self, sizes: Iterable[int]) -> None:
        """Capture decode steps of so many rows; those that can't be run without."""
        if self._attention.is_capturable:
            self._graphs.capture(sizes, self._prepare_empty)
        else:
            _log.info("event=cuda_graphs_off reason=attention:%s", self._attention.name)

    @torch.no_grad()
    def run(self, plan: StepPlan, score_prompt: ScorePrompt | None = None) -> Scores:
        """Queue the plan's chunks; return scores of those that are the last of theirs.

        Nothing waits, but for prompts that are scored: `score_prompt` gets logits on the host.
        """
        self._staging.next_step()
        batch = self._batch.build(plan)
        self._last_rows = self._staging.upload("last_rows", batch.last_rows)
        captured = self._graphs.smallest_for(batch.num_last) if batch.is_decode else None
        if captured is not None:
            size, graph = captured
            self._upload(batch.padded(size))
            graph.replay()
            hidden = graph.output
        else:
            hidden = self._hidden(self._upload(batch))
        self._score_prompts(batch, hidden, score_prompt)
        if batch.num_last == 0:
            return self._no_scores()
        return self._model.scores(hidden[: batch.num_last])

    @torch.no_grad()
    def keep(self, token_ids: Tensor) -> None:
        """Remember the tokens [N] of the last step's rows, for what is `PENDING` in the next."""
        self._last_ids.index_copy_(0, self._last_rows, token_ids)

    @torch.no_grad()
    def clear_blocks(self, block_ids: list[int]) -> None:
        """Zero blocks whose content must not reach their next owner."""
        self._kv_cache.clear(self._staging.upload("cleared", np.array(block_ids, dtype=np.int64)))

    def recover(self, exc: Exception) -> bool:
        """Wait for what was queued; if memory ran out, give back what isn't used, and say so.

        Raises:
            EngineDiedError: nothing can be computed in this process any more.
        """
        if not self._gpu.is_usable():
            raise EngineDiedError("The GPU computes nothing more after an error on it.") from exc
        ran_out = self._gpu.is_out_of_memory(exc)
        if ran_out:
            self.has_run_out_of_memory = True
            self._gpu.empty_cache()
        return ran_out

    def _upload(self, batch: ModelInput) -> _Uploaded:
        upload, tables = self._staging.upload, self._batch.block_tables
        attention = self._attention.plan(batch.spans, tables, None)
        windowed = attention
        if self._sliding_window is not None:
            windowed = self._attention.plan(batch.spans, tables, self._sliding_window)
        return _Uploaded(
            token_ids=upload("token_ids", batch.token_ids),
            positions=upload("positions", batch.positions),
            slot_mapping=upload("slot_mapping", batch.slot_mapping),
            wanted=upload("wanted", batch.wanted),
            attention=attention,
            windowed_attention=windowed,
        )

    def _hidden(self, step: _Uploaded) -> Tensor:
        """Return the final hidden states of the wanted rows. Device work alone: it's captured."""
        cos, signed_sin = self._rotary.at(step.positions)
        context = ForwardContext(
            cos=cos,
            signed_sin=signed_sin,
            slot_mapping=step.slot_mapping,
            wanted=step.wanted,
            kv_cache=self._kv_cache,
            attention=step.attention,
            windowed_attention=step.windowed_attention,
        )
        rows = row_of_pending(step.token_ids).clamp(min=0)
        token_ids = torch.where(step.token_ids < 0, self._last_ids[rows], step.token_ids)
        return self._model.forward(token_ids, context)

    def _prepare_empty(self, num_rows: int) -> Callable[[], Tensor]:
        self._staging.next_step()
        step = self._upload(ModelInput.empty().padded(num_rows))

        def compute() -> Tensor:
            hidden = self._hidden(step)
            if num_rows > len(self._captured):
                self._captured = torch.empty_like(hidden)
            # All graphs give their output in one place, or each would keep memory for its own.
            return self._captured[:num_rows].copy_(hidden)

        return compute

    def _score_prompts(
        self, batch: ModelInput, hidden: Tensor, score_prompt: ScorePrompt | None
    ) -> None:
        for seq, rows in scored_rows(batch, hidden):
            assert score_prompt is not None, seq
            score_prompt(seq, fetch(self._gpu, self._model.logits(rows)))

    def _no_scores(self) -> Scores:
        logits = torch.empty(0, self._vocab_size, device=self._gpu.device)
        ids = torch.empty(0, dtype=torch.int64, device=self._gpu.device)
        return Scores(logits, ids, logits[:, 0])
