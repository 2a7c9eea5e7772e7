"""Projections. A `LinearMethod` per weight format multiplies; fused projections are one product."""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor

from tgi_cli.kernels import linear as kernel


class LinearMethod(Protocol):
    """How one weight format is multiplied."""

    num_bytes: int  # resident
    packed: kernel.PackedLinear  # for kernels that take several products together

    def __call__(self, x: Tensor) -> Tensor:
        """Return `x` [T, K] projected to [T, N], or [T, N / 2] if the projection is gated."""
        ...


class DenseLinear:
    """A weight of plain floats, packed for the CPU in its own type."""

    def __init__(self, weight: Tensor, bias: Tensor | None = None, *, gated: bool = False) -> None:
        self.packed = kernel.pack(weight, bias, gated=gated)
        self.num_bytes = self.packed.num_bytes

    def __call__(self, x: Tensor) -> Tensor:
        return kernel.linear(x, self.packed)


def fuse(weights: list[Tensor], biases: list[Tensor | None], *, gated: bool = False) -> DenseLinear:
    """Make one projection of several with the same input; outputs stand side by side.

    With `gated` they are two, gate and up, and the output is silu(gate) * up.
    """
    assert all(b is None for b in biases) or all(b is not None for b in biases), "mixed biases"
    bias = None if biases[0] is None else torch.cat([b for b in biases if b is not None])
    return DenseLinear(torch.cat(weights), bias, gated=gated)
