"""The slow twin of the cuts, of one row, by sorting."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


def kept(y: Tensor, top_k: int, top_p: float, log_min_p: float) -> Tensor:
    """Return which of `y` [V] float64, whose highest is 0, are left: [V] bool."""
    lowest = -math.inf
    if 0 < top_k < len(y):
        lowest = float(y.sort(descending=True).values[top_k - 1])
    if top_p < 1.0:
        ordered = y[y >= lowest].sort(descending=True).values
        mass = ordered.exp().cumsum(-1)
        num_needed = int((mass < top_p * mass[-1]).sum()) + 1
        lowest = float(ordered[min(num_needed, len(ordered)) - 1])
    return y >= max(lowest, log_min_p)
