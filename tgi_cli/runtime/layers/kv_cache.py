"""The paged KV cache: a tensor per layer, whose pages are committed when first written.

Each is [num_blocks, 2, Hkv, block_size, D] fp32, keys at 0 and values at 1 of the second axis.
"""

from __future__ import annotations

import torch
from torch import Tensor

from tgi_cli.kernels.native.pages import zeros


class KVCache:
    def __init__(
        self, *, num_layers: int, num_blocks: int, block_size: int, num_kv_heads: int, head_dim: int
    ) -> None:
        shape = (num_blocks, 2, num_kv_heads, block_size, head_dim)
        # Zeros matter: padding is masked, but a masked NaN would still spoil the sum.
        self._layers = [zeros(shape, torch.float32) for _ in range(num_layers)]

    def layer(self, index: int) -> Tensor:
        return self._layers[index]

    def clear(self, block_ids: list[int]) -> None:
        """Zero blocks that hold values which must not reach their next owner."""
        for layer in self._layers:
            layer[block_ids] = 0.0
