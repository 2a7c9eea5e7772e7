"""The CPU's attention backend: torch operations over gathered blocks (`kernels/paged_attention`)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from tgi_cli.kernels import paged_attention as kernel
from tgi_cli.kernels.paged_attention import AttentionPlan, Span


class PagedAttention:
    def plan(
        self,
        spans: list[Span],
        block_tables: NDArray[np.int64],
        block_size: int,
        sliding_window: int | None,
    ) -> AttentionPlan:
        return kernel.plan(spans, block_tables, block_size, sliding_window)

    def attend(
        self, q: Tensor, kv: Tensor, cache: Tensor, plan: AttentionPlan, scale: float
    ) -> Tensor:
        return kernel.paged_attention(q, kv, cache, plan, scale)
