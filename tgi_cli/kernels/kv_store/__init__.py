"""Write the step's keys and values into their slots of the paged cache.

    cache[slot // block_size, slot % block_size] = kv

kv: [T, 2, Hkv, D] fp32, keys then values, any strides; slot_mapping: [T] int64, each slot at most once;
cache: [num_blocks, block_size, 2, Hkv, D] fp32. Memory bound.
"""

from __future__ import annotations

from torch import Tensor


def kv_store(kv: Tensor, cache: Tensor, slot_mapping: Tensor) -> None:
    """Store `kv` at `slot_mapping` in place."""
    num_tokens = kv.shape[0]
    cache.flatten(0, 1).flatten(1).index_copy_(0, slot_mapping, kv.reshape(num_tokens, -1))
