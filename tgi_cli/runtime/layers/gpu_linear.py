"""Projections on a GPU: each weight in the layout of the kernel that multiplies it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tgi_cli.kernels.gated_activation import gated_activation
from tgi_cli.kernels.linear import Codes
from tgi_cli.kernels.linear_16bit import Packed16Bit, linear_16bit
from tgi_cli.kernels.linear_16bit import pack as pack_16bit
from tgi_cli.runtime.layers.placement import Placement

if TYPE_CHECKING:
    import torch
    from torch import Tensor


def can_multiply(weight: Codes) -> bool:
    """Whether a kernel multiplies by `weight` without widening it to 16 bits in memory."""
    return False


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
        plain = weight.dequantize() if isinstance(weight, Codes) else weight
        self._packed: Packed16Bit = pack_16bit(
            plain, bias, device=placement.device, dtype=placement.activation_dtype
        )
        self._is_gated = gated
        self._out_dtype = out_dtype or placement.activation_dtype
        self.num_bytes = self._packed.num_bytes

    @property
    def rows(self) -> Tensor | None:
        """The weight [N, K] in 16 bits, if that is how it lies on the device."""
        packed = self._packed
        return packed.weight[:, : packed.num_in] if isinstance(packed, Packed16Bit) else None

    def __call__(self, x: Tensor) -> Tensor:
        y = linear_16bit(x, self._packed, self._out_dtype)
        return gated_activation(y, "silu") if self._is_gated else y
