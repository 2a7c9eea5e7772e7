"""The paged KV cache: one layer's keys and values after the other, in the backend's own layout.

Zeros at first, and memory is taken as blocks are written. Zeros matter: padding is masked, but a
masked NaN would still spoil the sum.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tgi_cli.runtime.layers.attention import AttentionBackend

if TYPE_CHECKING:
    import torch
    from torch import Tensor


class KVCache:
    def __init__(
        self,
        backend: AttentionBackend,
        *,
        num_layers: int,
        num_blocks: int,
        num_kv_heads: int,
        head_dim: int,
        dtype: torch.dtype,
    ) -> None:
        self._backend = backend
        self.layers: list[Any] = [  # as the backend takes them
            backend.new_cache(num_blocks, num_kv_heads, head_dim, dtype) for _ in range(num_layers)
        ]

    def clear(self, block_ids: list[int] | Tensor) -> None:
        """Zero blocks that hold values which must not reach their next owner."""
        for layer in self.layers:
            self._backend.clear(layer, block_ids)
