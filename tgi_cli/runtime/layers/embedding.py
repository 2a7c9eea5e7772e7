"""Token embedding: one row per token id, widened when it is read."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

from tgi_cli.kernels.embedding import embed, embed_rows
from tgi_cli.kernels.linear import PackedLinear
from tgi_cli.runtime.layers.gpu_linear import GpuProjection
from tgi_cli.runtime.layers.linear import LinearMethod, Projection
from tgi_cli.runtime.layers.placement import Placement

if TYPE_CHECKING:
    from torch import Tensor


class Embedding(Protocol):
    num_bytes: int  # resident, beside the head

    def __call__(self, token_ids: Tensor) -> Tensor:
        """Return [T, hidden] fp32 for `token_ids` [T]."""
        ...


class PlainEmbedding:
    """A weight in the checkpoint's type, of its own or the head's."""

    def __init__(self, weight: Tensor, placement: Placement, *, is_shared: bool = False) -> None:
        self._weight = weight.to(placement.device)  # [V, hidden]
        self.num_bytes = 0 if is_shared else weight.numel() * weight.element_size()

    def __call__(self, token_ids: Tensor) -> Tensor:
        return embed_rows(token_ids, self._weight)


class PackedEmbedding:
    """A head's weight in the CPU's panels, read by rows."""

    num_bytes = 0

    def __init__(self, packed: PackedLinear) -> None:
        self._packed = packed

    def __call__(self, token_ids: Tensor) -> Tensor:
        return embed(token_ids, self._packed)


def tied_embedding(
    head: LinearMethod, read: Callable[[], Tensor], placement: Placement
) -> Embedding:
    """Return the embedding whose weight is the head's, in memory once where rows can be read of it.

    Else `read` gives the weight [V, hidden] again: codes on a GPU lie in an order of their own.
    """
    if isinstance(head, Projection):
        return PackedEmbedding(head.packed)
    if isinstance(head, GpuProjection) and head.rows is not None:
        return PlainEmbedding(head.rows, placement, is_shared=True)
    return PlainEmbedding(read(), placement)
