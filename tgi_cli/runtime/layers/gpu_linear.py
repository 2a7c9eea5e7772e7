"""Projections on a GPU: each weight in the layout of the kernel that multiplies it.

A kernel's module says which grids it has; a weight on another grid is made plain (16 bits) by
`Weights`, which counts and tells it. docs/concepts/gpu.md has the table by format.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from tgi_cli.kernels import linear_16bit, linear_codes, linear_int4
from tgi_cli.kernels.gated_activation import gated_activation
from tgi_cli.kernels.linear import Codes
from tgi_cli.kernels.linear_16bit import Packed16Bit
from tgi_cli.kernels.linear_codes import PackedCodes
from tgi_cli.kernels.linear_int4 import PackedInt4
from tgi_cli.runtime.layers.placement import Placement

if TYPE_CHECKING:
    import torch
    from torch import Tensor

Packed = Packed16Bit | PackedCodes | PackedInt4


def can_multiply(weight: Codes) -> bool:
    """Whether a kernel multiplies by `weight` without widening it to 16 bits in memory."""
    return linear_int4.why_not(weight) is None or linear_codes.why_not(weight) is None


class GpuProjection:
    """A weight [N, K], packed once and moved to the device; the caller drops the original."""

    def __init__(
        self,
        weight: Tensor | Codes,
        bias: Tensor | None = None,
        *,
        gated: bool = False,
        placement: Placement,
        out_dtype: torch.dtype | None = None,
    ) -> None:
        self._packed = _pack(weight, bias, placement)
        self._is_gated = gated
        self._out_dtype = out_dtype or placement.activation_dtype
        self.num_bytes = self._packed.num_bytes

    @property
    def rows(self) -> Tensor | None:
        """The weight [N, K] in 16 bits, if that is how it lies on the device."""
        packed = self._packed
        return packed.weight[:, : packed.num_in] if isinstance(packed, Packed16Bit) else None

    def __call__(self, x: Tensor) -> Tensor:
        y = _multiply(x, self._packed, self._out_dtype)
        return gated_activation(y, "silu") if self._is_gated else y


def _pack(weight: Tensor | Codes, bias: Tensor | None, placement: Placement) -> Packed:
    device, dtype = placement.device, placement.activation_dtype
    if not isinstance(weight, Codes):
        return linear_16bit.pack(weight, bias, device=device, dtype=dtype)
    if linear_int4.why_not(weight) is None:
        return linear_int4.pack(weight, bias, device=device)
    return linear_codes.pack(weight, bias, device=device, dtype=dtype)


def _multiply(x: Tensor, packed: Packed, out_dtype: torch.dtype) -> Tensor:
    match packed:
        case Packed16Bit():
            return linear_16bit.linear_16bit(x, packed, out_dtype)
        case PackedCodes():
            return linear_codes.linear_codes(x, packed, out_dtype)
        case PackedInt4():
            return linear_int4.linear_int4(x, packed, out_dtype)
