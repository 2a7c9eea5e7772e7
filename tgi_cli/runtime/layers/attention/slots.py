"""A paged cache in the order of its slots, as flash-attn and FlashInfer read it.

[num_blocks + 1, 2, block_size, Hkv, D]: a block's keys, then its values, token after token. The
last block takes what no sequence owns: the rows that fill a captured step up.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from torch import Tensor


class SlotCaches:
    """What both packages' backends do with their caches."""

    block_size: int  # tokens

    def __init__(self, device: torch.device) -> None:
        self._device = device

    def new_cache(
        self, num_blocks: int, num_kv_heads: int, head_dim: int, dtype: torch.dtype
    ) -> Tensor:
        shape = (num_blocks + 1, 2, self.block_size, num_kv_heads, head_dim)
        return torch.zeros(shape, dtype=dtype, device=self._device)

    def store(self, kv: Tensor, cache: Tensor, slot_mapping: Tensor) -> None:
        """Write `kv` [T, 2, Hkv, D] to slots [T]; a slot below 0 takes nothing.

        Numbers too large become the type's largest.
        """
        block_size = self.block_size
        slot_mapping = slot_mapping.where(slot_mapping >= 0, (len(cache) - 1) * block_size)
        blocks, offsets = slot_mapping // block_size, slot_mapping % block_size
        largest = torch.finfo(cache.dtype).max
        cache[blocks, :, offsets] = kv.clamp(-largest, largest).to(cache.dtype)

    def clear(self, cache: Tensor, block_ids: list[int] | Tensor) -> None:
        cache[block_ids] = 0.0
