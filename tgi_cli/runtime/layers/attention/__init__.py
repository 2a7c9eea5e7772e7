"""Attention over the paged cache. A backend lays out a step once, then attends layer by layer."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

from tgi_cli.kernels.paged_attention import Span

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor


class AttentionBackend(Protocol):
    """One way of attending. A plan is its own business, valid for one step."""

    def plan(
        self,
        spans: list[Span],
        block_tables: NDArray[np.int64],
        block_size: int,
        sliding_window: int | None,
    ) -> Any:
        """Do the work of a step that all layers share."""
        ...

    def attend(self, q: Tensor, kv: Tensor, cache: Tensor, plan: Any, scale: float) -> Tensor:
        """Return [T, H, D] for `q` [T, H, D]; `kv` [T, 2, Hkv, D] is in `cache` already."""
        ...
