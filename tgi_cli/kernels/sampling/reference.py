"""The slow twin of the draw, of one row."""

from __future__ import annotations

import torch
from torch import Tensor


def mass(y: Tensor, is_kept: Tensor) -> Tensor:
    """Return the sum of the weights of the kept of `y` [V] float64."""
    return torch.where(is_kept, y.exp(), 0.0).sum()


def draw(y: Tensor, is_kept: Tensor, uniform: float) -> tuple[int, float]:
    """Return an id and its log-probability among the kept of `y` [V] float64."""
    weights = torch.where(is_kept, y.exp(), 0.0)
    mass = weights.cumsum(-1)
    index = int((mass <= uniform * mass[-1]).sum())
    index = min(index, int(weights.nonzero()[-1]))  # rounding led past the last possible token
    return index, float(y[index] - mass[-1].log())
