"""Turn a step's plan into the tensors that the model reads.

The block tables of running sequences stay in one array, a line per sequence, to which each step
adds only the new blocks; nothing here grows with what a batch has already done.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from tgi_cli.kernels.paged_attention import Span
from tgi_cli.runtime.engine.plan import StepPlan
from tgi_cli.runtime.engine.sequence import Sequence


@dataclass(frozen=True, slots=True)
class ModelInput:
    """One step. T tokens, sequence after sequence in the order of the plan.

    N rows are the last of their sequences; S rows score prompts, as many of each as `scored` says.
    """

    token_ids: Tensor  # [T] int64
    positions: Tensor  # [T] int64
    slot_mapping: Tensor  # [T] int64
    wanted: Tensor  # [N + S] int64, of T: the rows whose logits are wanted
    num_last: int  # N
    scored: list[tuple[Sequence, int]]
    spans: list[Span]


class BatchBuilder:
    def __init__(self, *, max_running: int, max_total_tokens: int, block_size: int) -> None:
        max_blocks = -(-max_total_tokens // block_size)
        self._block_size = block_size
        self.block_tables = np.zeros((max_running, max_blocks), dtype=np.int64)

    def build(self, plan: StepPlan) -> ModelInput:
        token_ids: list[int] = []
        positions: list[np.ndarray] = []
        slots: list[np.ndarray] = []
        spans: list[Span] = []
        last: list[int] = []
        scoring: list[int] = []
        scored: list[tuple[Sequence, int]] = []
        for chunk in plan.chunks:
            seq, num_blocks = chunk.seq, len(chunk.seq.block_table)
            table = self.block_tables[seq.row]
            table[num_blocks - len(chunk.new_blocks) : num_blocks] = chunk.new_blocks
            chunk_positions = np.arange(chunk.start, chunk.end)
            first = len(token_ids)
            token_ids += seq.token_ids[chunk.start : chunk.end]
            positions.append(chunk_positions)
            slots.append(
                table[chunk_positions // self._block_size] * self._block_size
                + chunk_positions % self._block_size
            )
            spans.append(Span(first, len(token_ids), chunk.end, seq.row))
            if chunk.is_last:
                last.append(len(token_ids) - 1)
            if to_score := chunk.scoring_positions:
                scoring += [first - chunk.start + position for position in to_score]
                scored.append((seq, len(to_score)))
        return ModelInput(
            token_ids=torch.tensor(token_ids),
            positions=torch.from_numpy(np.concatenate(positions)),
            slot_mapping=torch.from_numpy(np.concatenate(slots)),
            wanted=torch.tensor(last + scoring, dtype=torch.int64),
            num_last=len(last),
            scored=scored,
            spans=spans,
        )
