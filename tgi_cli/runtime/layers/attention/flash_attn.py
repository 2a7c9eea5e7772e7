"""Attention by the package flash-attn, version 2: `--attention flashdecoding`.

Sequences that decode go to `flash_attn_with_kvcache`, the others to `flash_attn_varlen_func`; both
read the cache in place, whose blocks hold 256 tokens since the package reads no smaller ones. Keys
are never split over programs (`num_splits=1`), so no split depends on the batch; but two kernels
give a token two different last bits, and what else a release does is its own affair: the promise
of equal bytes isn't made for it. Dao, FlashAttention-2, arXiv:2307.08691.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from tgi_cli.kernels.paged_attention import Span
from tgi_cli.runtime.layers.attention.packages import Package
from tgi_cli.runtime.layers.attention.slots import SlotCaches
from tgi_cli.runtime.layers.attention.step_rows import StepRows, decoding_and_others
from tgi_cli.runtime.platforms.uploads import Uploader

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

PACKAGE = Package("flash-attn", "flash_attn", (2, 6), (3, 0))
_MAX_HEAD_DIM = 256


def unsupported(head_dim: int, dtype: torch.dtype, kv_dtype: torch.dtype) -> str | None:
    """Return why the package can't do such heads, or None."""
    if head_dim > _MAX_HEAD_DIM or head_dim % 8:
        return f"its heads are multiples of 8 up to {_MAX_HEAD_DIM} wide, and not {head_dim}"
    if kv_dtype != dtype:
        return f"its cache is of the model's own type ({dtype}), and not {kv_dtype}"
    return None


@dataclass(frozen=True, slots=True)
class _Rows:
    """`StepRows` on the device; tokens [n] are None if they are the whole step."""

    tokens: Tensor | None
    query_starts: Tensor
    context_starts: Tensor  # [B + 1] int32
    context_lens: Tensor
    block_tables: Tensor
    max_query_len: int
    max_context_len: int


@dataclass(frozen=True, slots=True)
class FlashAttnPlan:
    decoding: _Rows | None
    others: _Rows | None
    window: tuple[int, int]  # keys to the left and right of a query's own; -1: all


class FlashAttnAttention(SlotCaches):
    """A cache is [num_blocks, 2, block_size, Hkv, D]."""

    name = "flash-attn"
    block_size = 256  # tokens
    is_capturable = True  # decoding reads its lengths on the device, and splits no keys

    def __init__(self, uploader: Uploader, device: torch.device) -> None:
        self._package = PACKAGE.load("flash-attn")
        self._uploader = uploader
        super().__init__(device)

    def plan(
        self, spans: list[Span], block_tables: NDArray[np.int64], sliding_window: int | None
    ) -> FlashAttnPlan:
        decoding, others = decoding_and_others(spans, block_tables)
        return FlashAttnPlan(
            self._upload("decoding", decoding),
            self._upload("others", others),
            (-1, -1) if sliding_window is None else (sliding_window - 1, 0),
        )

    def _upload(self, kind: str, rows: StepRows | None) -> _Rows | None:
        if rows is None:
            return None
        upload = self._uploader.upload
        context_starts = rows.query_starts.copy()
        context_starts[1:] = rows.context_lens.cumsum()
        return _Rows(
            tokens=None if rows.tokens is None else upload(f"{kind}_tokens", rows.tokens),
            query_starts=upload(f"{kind}_query_starts", rows.query_starts),
            context_starts=upload(f"{kind}_context_starts", context_starts),
            context_lens=upload(f"{kind}_context_lens", rows.context_lens),
            block_tables=upload(f"{kind}_block_tables", rows.block_tables),
            max_query_len=rows.max_query_len,
            max_context_len=rows.max_context_len,
        )

    def attend(
        self,
        q: Tensor,
        cache: Tensor,
        plan: FlashAttnPlan,
        scale: float,
        soft_cap: float = 0.0,
    ) -> Tensor:
        if plan.others is None:
            assert plan.decoding is not None
            return self._decode(q, cache, plan, plan.decoding, scale, soft_cap)
        if plan.decoding is None:
            return self._prefill(q, cache, plan, plan.others, scale, soft_cap)
        out = torch.empty_like(q)
        for rows, attend in ((plan.decoding, self._decode), (plan.others, self._prefill)):
            assert rows.tokens is not None
            out[rows.tokens] = attend(q[rows.tokens], cache, plan, rows, scale, soft_cap)
        return out

    def _decode(
        self,
        q: Tensor,
        cache: Tensor,
        plan: FlashAttnPlan,
        rows: _Rows,
        scale: float,
        soft_cap: float,
    ) -> Tensor:
        keys, values = cache.unbind(1)
        attended: Tensor = self._package.flash_attn_with_kvcache(
            q[:, None],  # [B, 1, H, D]
            keys,
            values,
            cache_seqlens=rows.context_lens,
            block_table=rows.block_tables,
            softmax_scale=scale,
            causal=True,
            window_size=plan.window,
            softcap=soft_cap,
            num_splits=1,
        )
        return attended[:, 0]

    def _prefill(
        self,
        q: Tensor,
        cache: Tensor,
        plan: FlashAttnPlan,
        rows: _Rows,
        scale: float,
        soft_cap: float,
    ) -> Tensor:
        keys, values = cache.unbind(1)
        attended: Tensor = self._package.flash_attn_varlen_func(
            q,
            keys,
            values,
            cu_seqlens_q=rows.query_starts,
            cu_seqlens_k=rows.context_starts,
            max_seqlen_q=rows.max_query_len,
            max_seqlen_k=rows.max_context_len,
            softmax_scale=scale,
            causal=True,
            window_size=plan.window,
            softcap=soft_cap,
            block_table=rows.block_tables,
        )
        return attended
