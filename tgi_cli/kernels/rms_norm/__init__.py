"""Root mean square normalisation, alone or after a residual addition.

    h = x + residual                                  (written to residual)
    y = h / sqrt(mean(h_i^2) + eps) * weight

x, residual, y: [..., H] fp32; weight: [H] fp32. Memory bound.
Zhang and Sennrich, Root Mean Square Layer Normalization, arXiv:1910.07467.
"""

from __future__ import annotations

import torch
from torch import Tensor


def rms_norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    """Return `x` normalised over its last axis."""
    return torch.nn.functional.rms_norm(x, weight.shape, weight, eps)


def add_rms_norm(x: Tensor, residual: Tensor, weight: Tensor, eps: float) -> Tensor:
    """Add `x` to `residual` in place and return the sum normalised."""
    return rms_norm(residual.add_(x), weight, eps)
