"""Paged attention in torch: gather the blocks, then one product per group of sequences.

Decodes whose contexts have similar lengths form a group: their blocks are gathered into one
padded [B, L] batch and the G queries of a key head are the rows of one product. A prompt's chunk
is attended alone. Gathering moves each context four times.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from tgi_cli.kernels.native.pages import zeros

from . import BLOCK_SIZE

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from . import Span

# Padding that a group may waste before a second group is cheaper: one group costs about as much as
# gathering and attending this many tokens.
_GROUP_OVERHEAD_TOKENS = 256


@dataclass(frozen=True, slots=True)
class _DecodeGroup:
    tokens: Tensor | slice  # [B] of T, or the slice when they are neighbours
    block_ids: Tensor  # [B * blocks] int64; short rows are padded with a block of their own
    batch: int
    mask: Tensor  # [B, 1, 1, L] bool, true where the key is seen


@dataclass(frozen=True, slots=True)
class _PrefillChunk:
    tokens: slice
    block_ids: Tensor  # [blocks] int64
    context_len: int
    mask: Tensor | None  # [num_tokens, context_len] bool; None: plain causal


@dataclass(slots=True)
class GatheredPlan:
    """What every layer does in this step."""

    decode_groups: list[_DecodeGroup] = field(default_factory=list)
    prefill_chunks: list[_PrefillChunk] = field(default_factory=list)


class GatheredAttention:
    """A cache is [num_blocks, 2, Hkv, block_size, D], keys before values."""

    name = "torch"
    is_capturable = False

    def __init__(self, block_size: int = BLOCK_SIZE) -> None:
        self.block_size = block_size

    def new_cache(
        self, num_blocks: int, num_kv_heads: int, head_dim: int, dtype: torch.dtype
    ) -> Tensor:
        return zeros((num_blocks, 2, num_kv_heads, self.block_size, head_dim), dtype)

    def store(self, kv: Tensor, cache: Tensor, slot_mapping: Tensor) -> None:
        blocks, offsets = slot_mapping // self.block_size, slot_mapping % self.block_size
        largest = torch.finfo(cache.dtype).max
        cache[blocks, :, :, offsets] = kv.clamp(-largest, largest).to(cache.dtype)

    def clear(self, cache: Tensor, block_ids: list[int] | Tensor) -> None:
        cache[block_ids] = 0.0

    def plan(
        self, spans: list[Span], block_tables: NDArray[np.int64], sliding_window: int | None
    ) -> GatheredPlan:
        block_size = self.block_size
        result = GatheredPlan()
        for span in spans:
            if span.num_tokens > 1:
                result.prefill_chunks.append(
                    _plan_prefill(span, block_tables, block_size, sliding_window)
                )
        decodes = [span for span in spans if span.num_tokens == 1]
        for group in _group_by_length(decodes):
            result.decode_groups.append(
                _plan_decode(group, block_tables, block_size, sliding_window)
            )
        return result

    def attend(
        self,
        q: Tensor,
        cache: Tensor,
        plan: GatheredPlan,
        scale: float,
        soft_cap: float = 0.0,
    ) -> Tensor:
        assert not soft_cap, "scaled_dot_product_attention has no cap"
        out = torch.empty(q.shape, dtype=q.dtype)
        for group in plan.decode_groups:
            _attend_decodes(q, cache, group, scale, out)
        for chunk in plan.prefill_chunks:
            _attend_prefill(q, cache, chunk, scale, out)
        return out


def _group_by_length(decodes: list[Span]) -> list[list[Span]]:
    """Split decodes into groups in which padding costs less than another group would."""
    groups: list[list[Span]] = []
    wasted = 0
    for span in sorted(decodes, key=lambda span: -span.context_len):
        if groups:
            wasted += groups[-1][0].context_len - span.context_len
        if not groups or wasted > _GROUP_OVERHEAD_TOKENS:
            groups.append([])
            wasted = 0
        groups[-1].append(span)
    return groups


def _plan_decode(
    group: list[Span],
    block_tables: NDArray[np.int64],
    block_size: int,
    sliding_window: int | None,
) -> _DecodeGroup:
    group = sorted(group, key=lambda span: span.start)
    lengths = np.array([span.context_len for span in group])
    first = 0
    if sliding_window is not None:  # blocks that no query of the group sees aren't gathered
        first = max(0, int(lengths.min()) - sliding_window) // block_size
    last = -(-int(lengths.max()) // block_size)
    rows = np.array([span.row for span in group])
    block_ids = block_tables[rows, first:last]
    held = -(-lengths // block_size)
    padding = np.arange(first, last) >= held[:, None]
    block_ids = np.where(padding, block_tables[rows, held - 1][:, None], block_ids)

    positions = np.arange(first * block_size, last * block_size)
    seen = positions < lengths[:, None]
    if sliding_window is not None:
        seen &= positions >= lengths[:, None] - sliding_window
    starts = [span.start for span in group]
    are_neighbours = starts[-1] - starts[0] == len(starts) - 1
    return _DecodeGroup(
        tokens=slice(starts[0], starts[-1] + 1) if are_neighbours else torch.tensor(starts),
        block_ids=torch.from_numpy(block_ids.reshape(-1)),
        batch=len(group),
        mask=torch.from_numpy(seen)[:, None, None, :],
    )


def _plan_prefill(
    span: Span, block_tables: NDArray[np.int64], block_size: int, sliding_window: int | None
) -> _PrefillChunk:
    tokens = slice(span.start, span.end)
    mask = None
    window = span.context_len if sliding_window is None else sliding_window
    is_windowed = window < span.context_len
    if span.num_cached_tokens or is_windowed:
        queries = torch.arange(span.num_cached_tokens, span.context_len)[:, None]
        keys = torch.arange(span.context_len)
        mask = keys <= queries
        if is_windowed:
            mask &= keys > queries - window
    num_blocks = -(-span.context_len // block_size)
    block_ids = torch.from_numpy(block_tables[span.row, :num_blocks].copy())
    return _PrefillChunk(tokens, block_ids, span.context_len, mask)


def _gather(cache: Tensor, block_ids: Tensor, batch: int) -> tuple[Tensor, Tensor]:
    """Copy `batch` equal runs of blocks out of the cache: keys and values, [B, Hkv, L, D] each."""
    num_kv_heads, head_dim = cache.shape[2], cache.shape[4]
    blocks = (
        cache.index_select(0, block_ids).float().unflatten(0, (batch, -1))
    )  # [B, n, 2, Hkv, bs, D]
    context = blocks.permute(2, 0, 3, 1, 4, 5).reshape(2, batch, num_kv_heads, -1, head_dim)
    return context[0], context[1]


def _attend_decodes(
    q: Tensor, cache: Tensor, group: _DecodeGroup, scale: float, out: Tensor
) -> None:
    num_kv_heads, head_dim = cache.shape[2], cache.shape[4]
    keys, values = _gather(cache, group.block_ids, group.batch)
    queries = q[group.tokens].view(group.batch, num_kv_heads, -1, head_dim)  # [B, Hkv, G, D]
    attended = scaled_dot_product_attention(
        queries, keys, values, attn_mask=group.mask, scale=scale
    )
    out[group.tokens] = attended.reshape(group.batch, -1, head_dim)


def _attend_prefill(
    q: Tensor, cache: Tensor, chunk: _PrefillChunk, scale: float, out: Tensor
) -> None:
    keys, values = _gather(cache, chunk.block_ids, 1)
    keys, values = keys[:, :, : chunk.context_len], values[:, :, : chunk.context_len]
    queries = q[chunk.tokens].transpose(0, 1)[None]  # [1, H, N, D]
    attended = scaled_dot_product_attention(
        queries,
        keys,
        values,
        attn_mask=chunk.mask,
        is_causal=chunk.mask is None,
        scale=scale,
        enable_gqa=True,
    )
    out[chunk.tokens] = attended[0].transpose(0, 1)
