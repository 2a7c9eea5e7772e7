"""The slow twin of `kv_store`."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


def kv_store(kv: Tensor, cache: Tensor, slot_mapping: Tensor) -> None:
    block_size = cache.shape[3]
    cache[slot_mapping // block_size, :, :, slot_mapping % block_size] = kv
