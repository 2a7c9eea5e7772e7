"""A step's sequences as the packages take them: those that decode, and those that prefill.

They go to different kernels and never share a call, so that a decoding sequence's numbers don't
depend on whether a prompt is computed beside it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from tgi_cli.kernels.paged_attention import Span

if TYPE_CHECKING:
    from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class StepRows:
    """B sequences with n tokens of the step; all arrays are the host's."""

    tokens: NDArray[np.int64] | None  # [n], places in the step; None: all of it, in order
    query_starts: NDArray[np.int32]  # [B + 1], in `tokens`
    context_lens: NDArray[np.int32]  # [B]
    block_tables: NDArray[np.int32]  # [B, max_blocks], as wide in every step

    @property
    def max_query_len(self) -> int:
        return int(np.diff(self.query_starts).max())

    @property
    def max_context_len(self) -> int:
        return int(self.context_lens.max())


def decoding_and_others(
    spans: list[Span], block_tables: NDArray[np.int64]
) -> tuple[StepRows | None, StepRows | None]:
    """Return the spans of one token and the longer ones; None where there are none."""
    decoding = [span for span in spans if span.num_tokens == 1]
    others = [span for span in spans if span.num_tokens != 1]
    is_mixed = bool(decoding and others)
    return _rows(decoding, block_tables, is_mixed), _rows(others, block_tables, is_mixed)


def _rows(spans: list[Span], block_tables: NDArray[np.int64], is_mixed: bool) -> StepRows | None:
    if not spans:
        return None
    lengths = np.array([0, *(span.num_tokens for span in spans)], dtype=np.int32)
    tokens = np.concatenate([np.arange(span.start, span.end) for span in spans])
    return StepRows(
        tokens=tokens if is_mixed else None,
        query_starts=np.cumsum(lengths, dtype=np.int32),
        context_lens=np.array([span.context_len for span in spans], dtype=np.int32),
        block_tables=block_tables[[span.row for span in spans]].astype(np.int32),
    )
