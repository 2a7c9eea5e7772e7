"""Paged attention in C (`cpu.c`): reads the cache in place; bits don't depend on the batch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from tgi_cli.kernels import native

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from . import Span

_MAX_HEAD_DIM = 256
_MAX_GROUP = 16


@dataclass(frozen=True, slots=True)
class NativePlan:
    spans: NDArray[np.int64]  # [n, 4]: start, end, context_len, row
    block_tables: NDArray[np.int64]  # [rows, max_blocks]
    sliding_window: int  # 0: none


class NativeAttention:
    name = "native"

    @staticmethod
    def supports(num_heads: int, num_kv_heads: int, head_dim: int) -> bool:
        return (
            native.is_available()
            and head_dim % 8 == 0
            and head_dim <= _MAX_HEAD_DIM
            and num_heads // num_kv_heads <= _MAX_GROUP
        )

    def plan(
        self,
        spans: list[Span],
        block_tables: NDArray[np.int64],
        block_size: int,
        sliding_window: int | None,
    ) -> NativePlan:
        rows = [(span.start, span.end, span.context_len, span.row) for span in spans]
        return NativePlan(np.array(rows, dtype=np.int64), block_tables, sliding_window or 0)

    def attend(
        self, q: Tensor, kv: Tensor, cache: Tensor, plan: NativePlan, scale: float
    ) -> Tensor:
        _num_tokens, num_heads, head_dim = q.shape
        num_kv_heads, block_size = cache.shape[2], cache.shape[3]
        assert q.stride()[1:] == (head_dim, 1), q.stride()
        assert cache.is_contiguous()
        out = torch.empty(q.shape, dtype=torch.float32)
        _attention()(
            q.data_ptr(),
            q.stride(0),
            cache.data_ptr(),
            out.data_ptr(),
            plan.block_tables.ctypes.data,
            plan.block_tables.shape[1],
            plan.spans.ctypes.data,
            len(plan.spans),
            num_heads,
            num_kv_heads,
            head_dim,
            block_size,
            plan.sliding_window,
            scale,
        )
        return out


def _attention() -> native.Function:
    pointer, size = native.Pointer, native.Int
    return native.function(
        "tgi_paged_attention",
        *(pointer, size, pointer, pointer, pointer, size, pointer),
        *(size, size, size, size, size, size, native.Float),
    )
