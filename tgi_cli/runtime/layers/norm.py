"""RMS normalisation with its weight."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tgi_cli.kernels import rms_norm as kernel
from tgi_cli.runtime.layers.placement import Placement

if TYPE_CHECKING:
    from torch import Tensor


class RMSNorm:
    """Sums are of fp32; what comes out is of the activations' type."""

    def __init__(self, weight: Tensor, eps: float, placement: Placement) -> None:
        self.weight = weight.float().to(placement.device)
        self.eps = eps
        self._out_dtype = placement.activation_dtype
        self.num_bytes = self.weight.numel() * 4

    def __call__(self, x: Tensor) -> Tensor:
        return kernel.rms_norm(x, self.weight, self.eps, out_dtype=self._out_dtype)

    def add(self, x: Tensor, residual: Tensor) -> Tensor:
        """Add `x` to `residual` in place and return the sum normalised."""
        return kernel.add_rms_norm(x, residual, self.weight, self.eps, out_dtype=self._out_dtype)
