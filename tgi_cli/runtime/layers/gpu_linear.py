"""Projections on a GPU: each weight in the layout of the kernel that multiplies it."""

from __future__ import annotations

import torch
from torch import Tensor

from tgi_cli.kernels.linear import Codes
from tgi_cli.runtime.layers.placement import Placement


def can_multiply(weight: Codes) -> bool:
    """Whether a kernel multiplies by `weight` without widening it to 16 bits in memory."""
    return False


class GpuProjection:
    """A weight [N, K], copied to the device; y is [T, N], or [T, N / 2] of gated halves."""

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
        self.rows = plain.to(placement.activation_dtype).to(placement.device)  # [N, K]
        self._bias = None if bias is None else bias.float().to(placement.device)
        self._gated = gated
        self._out_dtype = out_dtype or placement.activation_dtype
        self.num_bytes = self.rows.numel() * self.rows.element_size()

    def __call__(self, x: Tensor) -> Tensor:
        y = torch.nn.functional.linear(x.float(), self.rows.float(), self._bias)
        if self._gated:
            gate, up = y.chunk(2, dim=-1)
            y = torch.nn.functional.silu(gate) * up
        return y.to(self._out_dtype)
