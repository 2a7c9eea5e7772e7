"""Token embedding: one row per token id, kept in the checkpoint's type and widened when read."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


class Embedding:
    def __init__(self, weight: Tensor) -> None:
        self._weight = weight  # [V, hidden]
        self.num_bytes = weight.numel() * weight.element_size()

    def __call__(self, token_ids: Tensor) -> Tensor:
        """Return [T, hidden] fp32 for `token_ids` [T]."""
        return self._weight.index_select(0, token_ids).float()
