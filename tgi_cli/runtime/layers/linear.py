"""Projections. A `LinearMethod` multiplies; those with the same input may be one product."""

from __future__ import annotations

from dataclasses import replace
from typing import Protocol

import torch
from torch import Tensor

from tgi_cli.kernels import linear as kernel
from tgi_cli.kernels.linear import Codes
from tgi_cli.runtime.layers import gpu_linear
from tgi_cli.runtime.layers.gpu_linear import GpuProjection
from tgi_cli.runtime.layers.placement import Placement


class LinearMethod(Protocol):
    """How one weight format is multiplied."""

    num_bytes: int  # resident

    def __call__(self, x: Tensor) -> Tensor:
        """Return `x` [T, K] projected to [T, N], or [T, N / 2] if the projection is gated."""
        ...


def project(
    weight: Tensor | Codes,
    bias: Tensor | None = None,
    *,
    gated: bool = False,
    placement: Placement,
) -> LinearMethod:
    """Pack a weight [N, K] for the kernels of `placement`; the caller drops the original."""
    if placement.uses_triton:
        return GpuProjection(weight, bias, gated=gated, placement=placement)
    return Projection(weight, bias, gated=gated)


def can_multiply(weight: Codes, placement: Placement) -> bool:
    """Whether `placement` has a kernel for such codes; else the weight is made plain."""
    return not placement.uses_triton or gpu_linear.can_multiply(weight)


class Projection:
    """A weight packed for the CPU: plain floats in their own type, or codes on a grid."""

    def __init__(
        self, weight: Tensor | Codes, bias: Tensor | None = None, *, gated: bool = False
    ) -> None:
        self.packed = kernel.pack(weight, bias, gated=gated)
        self.num_bytes = self.packed.num_bytes

    def __call__(self, x: Tensor) -> Tensor:
        return kernel.linear(x, self.packed)


def side_by_side(weights: list[Tensor | Codes]) -> Tensor | Codes:
    """Return weights [N, K] with the same input as one: on a grid if the same one holds them all.

    Else it is plain; in fp32 if any of them was on a grid.
    """
    codes = [weight for weight in weights if isinstance(weight, Codes)]
    plain = [weight for weight in weights if not isinstance(weight, Codes)]
    if not codes:
        return torch.cat(plain)
    if not plain and all(each.is_alike(codes[0]) for each in codes):
        has_offsets = any(each.offsets is not None for each in codes)
        offsets = [
            torch.zeros_like(each.scales) if each.offsets is None else each.offsets
            for each in codes
        ]
        return replace(
            codes[0],
            codes=torch.cat([each.codes for each in codes]),
            scales=torch.cat([each.scales for each in codes]),  # fp32 if one of them is
            offsets=torch.cat(offsets) if has_offsets else None,
        )
    # Of different kinds: fp32 holds them all.
    return torch.cat([w.dequantize() if isinstance(w, Codes) else w.float() for w in weights])
