"""Projections. A `LinearMethod` per weight format multiplies; fused projections are one product."""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor

from tgi_cli.kernels import linear as linear_kernel


class LinearMethod(Protocol):
    """How one weight format is multiplied."""

    num_bytes: int  # resident

    def __call__(self, x: Tensor) -> Tensor:
        """Return `x` [T, K] projected to [T, N]."""
        ...


class DenseLinear:
    """A weight of plain floats, packed for the CPU."""

    def __init__(self, weight: Tensor, bias: Tensor | None = None) -> None:
        self._packed = linear_kernel.pack(weight, bias)
        self.num_bytes = self._packed.num_bytes

    def __call__(self, x: Tensor) -> Tensor:
        return linear_kernel.linear(x, self._packed)


def fuse(weights: list[Tensor], biases: list[Tensor | None]) -> DenseLinear:
    """Make one projection of several with the same input; outputs stand side by side."""
    assert all(b is None for b in biases) or all(b is not None for b in biases), "mixed biases"
    bias = None if biases[0] is None else torch.cat([b for b in biases if b is not None])
    return DenseLinear(torch.cat(weights), bias)
