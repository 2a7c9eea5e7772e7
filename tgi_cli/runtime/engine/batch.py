"""Turn a step's plan into the arrays that the model reads.

The block tables of running sequences stay in one array, a line per sequence, to which each step
adds only the new blocks; nothing here grows with what a batch has already done.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from tgi_cli.kernels.paged_attention import Span
from tgi_cli.runtime.engine.plan import StepPlan
from tgi_cli.runtime.engine.sequence import PENDING, Sequence

if TYPE_CHECKING:
    from numpy.typing import DTypeLike, NDArray

NO_SLOT = -1  # of a token whose keys and values go nowhere


@dataclass(frozen=True, slots=True)
class ModelInput:
    """One step. T tokens, sequence after sequence in the order of the plan.

    N rows are the last of their sequences; S rows score prompts, as many of each as `scored` says.
    An id below 0 is `pending_id(row)`: the token that was last sampled for that row.
    """

    token_ids: NDArray[np.int64]  # [T]
    positions: NDArray[np.int64]  # [T]
    slot_mapping: NDArray[np.int64]  # [T]
    wanted: NDArray[np.int64]  # [N + S], of T: the rows whose logits are wanted
    last_rows: NDArray[np.int64]  # [N], of the block tables: whose logits the first N are
    scored: list[tuple[Sequence, int]]
    spans: list[Span]

    @classmethod
    def empty(cls) -> ModelInput:
        """Return a step of nothing, to be padded."""
        nothing = np.empty(0, dtype=np.int64)
        return cls(nothing, nothing, nothing, nothing, nothing, scored=[], spans=[])

    @property
    def num_last(self) -> int:
        return len(self.last_rows)

    @property
    def is_decode(self) -> bool:
        """Whether the step is one token of each sequence, and each has a next one."""
        return len(self.token_ids) == len(self.spans) == self.num_last and not self.scored

    def padded(self, num_rows: int) -> ModelInput:
        """Return this decode step with more rows, which read no context and write nowhere."""
        assert self.is_decode
        first = len(self.spans)
        return ModelInput(
            token_ids=_padded(self.token_ids, num_rows, 0),
            positions=_padded(self.positions, num_rows, 0),
            slot_mapping=_padded(self.slot_mapping, num_rows, NO_SLOT),
            wanted=np.arange(num_rows),
            last_rows=self.last_rows,
            scored=[],
            spans=self.spans + [Span(i, i + 1, 0, 0) for i in range(first, num_rows)],
        )


def pending_id(row: int) -> int:
    """Return what stands for the token that a running step samples for the sequence in `row`."""
    return PENDING - row


def row_of_pending(token_ids: Any) -> Any:
    """Return the row of each id below 0; what comes of the others means nothing."""
    return PENDING - token_ids


def _padded(array: NDArray[np.int64], size: int, value: int) -> NDArray[np.int64]:
    whole = np.full(size, value, dtype=array.dtype)
    whole[: len(array)] = array
    return whole


class BatchBuilder:
    def __init__(
        self,
        *,
        max_running: int,
        max_total_tokens: int,
        block_size: int,
        table_dtype: DTypeLike = np.int64,
    ) -> None:
        max_blocks = -(-max_total_tokens // block_size)
        self._block_size = block_size
        self._changed_rows: set[int] = set()
        self.block_tables: NDArray[Any] = np.zeros((max_running, max_blocks), dtype=table_dtype)

    def take_changed_rows(self) -> list[int]:
        """Return the lines of the block tables that have got blocks since this was last asked."""
        changed, self._changed_rows = sorted(self._changed_rows), set()
        return changed

    def build(self, plan: StepPlan) -> ModelInput:
        token_ids: list[int] = []
        positions: list[np.ndarray] = []
        slots: list[np.ndarray] = []
        spans: list[Span] = []
        last: list[int] = []
        last_rows: list[int] = []
        scoring: list[int] = []
        scored: list[tuple[Sequence, int]] = []
        for chunk in plan.chunks:
            seq, num_blocks = chunk.seq, len(chunk.seq.block_table)
            table = self.block_tables[seq.row]
            if chunk.new_blocks:
                table[num_blocks - len(chunk.new_blocks) : num_blocks] = chunk.new_blocks
                self._changed_rows.add(seq.row)
            chunk_positions = np.arange(chunk.start, chunk.end)
            first = len(token_ids)
            token_ids += seq.token_ids[chunk.start : chunk.end]
            if token_ids[-1] == PENDING:
                token_ids[-1] = pending_id(seq.row)
            positions.append(chunk_positions)
            slots.append(
                table[chunk_positions // self._block_size] * self._block_size
                + chunk_positions % self._block_size
            )
            spans.append(Span(first, len(token_ids), chunk.end, seq.row))
            if chunk.is_last:
                last.append(len(token_ids) - 1)
                last_rows.append(seq.row)
            if to_score := chunk.scoring_positions:
                scoring += [first - chunk.start + position for position in to_score]
                scored.append((seq, len(to_score)))
        return ModelInput(
            token_ids=np.array(token_ids, dtype=np.int64),
            positions=np.concatenate(positions),
            slot_mapping=np.concatenate(slots).astype(np.int64, copy=False),
            wanted=np.array(last + scoring, dtype=np.int64),
            last_rows=np.array(last_rows, dtype=np.int64),
            scored=scored,
            spans=spans,
        )
