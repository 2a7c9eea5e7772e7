"""The slow twin of `paged_attention`: one query, one head, one softmax at a time."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from . import Span


def paged_attention(
    q: Tensor,
    cache: Tensor,
    spans: list[Span],
    block_tables: list[list[int]],
    scale: float,
    sliding_window: int | None,
    soft_cap: float = 0.0,
) -> Tensor:
    """q: [T, H, D]; cache: [num_blocks, 2, Hkv, block_size, D]. Returns [T, H, D]."""
    block_size, num_kv_heads = cache.shape[3], cache.shape[2]
    group_size = q.shape[1] // num_kv_heads
    out = torch.full_like(q, float("nan"))
    for span in spans:
        blocks = block_tables[span.row]
        context = torch.stack(
            [cache[blocks[j // block_size], :, :, j % block_size] for j in range(span.context_len)]
        )
        for token in range(span.start, span.end):
            position = span.num_cached_tokens + token - span.start
            first = 0 if sliding_window is None else max(0, position + 1 - sliding_window)
            for head in range(q.shape[1]):
                keys = context[first : position + 1, 0, head // group_size]
                values = context[first : position + 1, 1, head // group_size]
                scores = keys @ q[token, head] * scale
                if soft_cap:
                    scores = soft_cap * torch.tanh(scores / soft_cap)
                weights = torch.softmax(scores, dim=0)
                out[token, head] = weights @ values
    return out
