"""The slow twin of `add_lora`."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from .packing import Pair


def add_lora(
    x: Tensor,
    adapters: Sequence[Sequence[Pair | None]],
    widths: Sequence[int],
    of_rows: Tensor,
    y: Tensor,
) -> None:
    for row, adapter in enumerate(of_rows.tolist()):
        if adapter < 0:
            continue
        for part, pair in zip(y[row].split(list(widths)), adapters[adapter], strict=True):
            if pair is not None:
                a, b = (each.to(x.dtype) for each in pair)
                part += (x[row] @ a.T) @ b.T
