"""Token embedding: one row per token id, widened when it is read."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from tgi_cli.kernels.embedding import embed
from tgi_cli.runtime.layers.linear import LinearMethod

if TYPE_CHECKING:
    from torch import Tensor


class Embedding(Protocol):
    num_bytes: int  # resident, beside the head

    def __call__(self, token_ids: Tensor) -> Tensor:
        """Return [T, hidden] fp32 for `token_ids` [T]."""
        ...


class OwnEmbedding:
    """A weight of its own, in the checkpoint's type."""

    def __init__(self, weight: Tensor) -> None:
        self._weight = weight  # [V, hidden]
        self.num_bytes = weight.numel() * weight.element_size()

    def __call__(self, token_ids: Tensor) -> Tensor:
        return self._weight.index_select(0, token_ids).float()


class TiedEmbedding:
    """The head's weight, read by rows."""

    num_bytes = 0

    def __init__(self, head: LinearMethod) -> None:
        self._packed = head.packed

    def __call__(self, token_ids: Tensor) -> Tensor:
        return embed(token_ids, self._packed)
