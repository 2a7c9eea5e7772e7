"""Paged attention in C (`cpu.c`): reads the cache in place; bits don't depend on the batch."""

from __future__ import annotations

import ctypes
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from tgi_cli.kernels import native
from tgi_cli.kernels.native import kernel_types
from tgi_cli.kernels.native.pages import zeros

from . import BLOCK_SIZE

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from . import Span

_MAX_HEAD_DIM = 256
_MAX_GROUP = 16
_pointer, _int, _float = native.Pointer, native.Int, native.Float


class _KvCache(ctypes.Structure):
    _fields_ = (
        ("data", _pointer),
        *((name, _int) for name in ("kernel", "num_kv_heads", "head_dim")),
    )


class _Attention(ctypes.Structure):
    _fields_ = (
        *((name, _pointer) for name in ("q", "cache", "out", "block_tables", "spans")),
        *((name, _int) for name in ("q_stride", "out_stride", "table_stride", "num_spans")),
        *((name, _int) for name in ("num_heads", "sliding_window")),
        ("scale", _float),
        ("soft_cap", _float),
    )


class NativeCache:
    """One layer's keys and values: `paged_attention.h` has the layout."""

    def __init__(
        self, num_blocks: int, num_kv_heads: int, head_dim: int, dtype: torch.dtype
    ) -> None:
        self.descriptor = _KvCache(
            kernel=kernel_types.PLAIN[dtype], num_kv_heads=num_kv_heads, head_dim=head_dim
        )
        library = native.function("tgi_kv_block_bytes", _pointer, returns=_int)
        num_bytes = library(ctypes.byref(self.descriptor))
        self.blocks = zeros((num_blocks, num_bytes // dtype.itemsize), dtype)
        self.descriptor.data = self.blocks.data_ptr()


@dataclass(frozen=True, slots=True)
class NativePlan:
    spans: NDArray[np.int64]  # [n, 4]: start, end, context_len, row
    block_tables: NDArray[np.int64]  # [rows, max_blocks]
    sliding_window: int  # 0: none


class NativeAttention:
    name = "native"
    block_size = BLOCK_SIZE
    is_capturable = False

    @staticmethod
    def supports(num_heads: int, num_kv_heads: int, head_dim: int) -> bool:
        return (
            native.is_available()
            and head_dim <= _MAX_HEAD_DIM
            and num_heads // num_kv_heads <= _MAX_GROUP
        )

    def new_cache(
        self, num_blocks: int, num_kv_heads: int, head_dim: int, dtype: torch.dtype
    ) -> NativeCache:
        return NativeCache(num_blocks, num_kv_heads, head_dim, dtype)

    def store(self, kv: Tensor, cache: NativeCache, slot_mapping: Tensor) -> None:
        num_tokens, _, num_kv_heads, head_dim = kv.shape
        assert kv.stride()[1:] == (num_kv_heads * head_dim, head_dim, 1), kv.stride()
        native.function("tgi_kv_store", _pointer, _pointer, _int, _pointer, _int)(
            ctypes.byref(cache.descriptor),
            kv.data_ptr(),
            kv.stride(0),
            slot_mapping.data_ptr(),
            num_tokens,
        )

    def clear(self, cache: NativeCache, block_ids: list[int] | Tensor) -> None:
        cache.blocks[block_ids] = 0

    def plan(
        self, spans: list[Span], block_tables: NDArray[np.int64], sliding_window: int | None
    ) -> NativePlan:
        rows = [(span.start, span.end, span.context_len, span.row) for span in spans]
        return NativePlan(np.array(rows, dtype=np.int64), block_tables, sliding_window or 0)

    def attend(
        self,
        q: Tensor,
        cache: NativeCache,
        plan: NativePlan,
        scale: float,
        soft_cap: float = 0.0,
    ) -> Tensor:
        _num_tokens, num_heads, head_dim = q.shape
        assert q.stride()[1:] == (head_dim, 1), q.stride()
        out = torch.empty(q.shape, dtype=torch.float32)
        attention = _Attention(
            q=q.data_ptr(),
            cache=ctypes.addressof(cache.descriptor),
            out=out.data_ptr(),
            block_tables=plan.block_tables.ctypes.data,
            spans=plan.spans.ctypes.data,
            q_stride=q.stride(0),
            out_stride=num_heads * head_dim,
            table_stride=plan.block_tables.shape[1],
            num_spans=len(plan.spans),
            num_heads=num_heads,
            sliding_window=plan.sliding_window,
            scale=scale,
            soft_cap=soft_cap,
        )
        native.function("tgi_paged_attention", _pointer)(ctypes.byref(attention))
        return out
