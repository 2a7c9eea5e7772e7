"""RMS normalisation with its weight."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tgi_cli.kernels import rms_norm as kernel

if TYPE_CHECKING:
    from torch import Tensor


class RMSNorm:
    def __init__(self, weight: Tensor, eps: float) -> None:
        self.weight = weight.float()
        self._eps = eps
        self.num_bytes = self.weight.numel() * 4

    def __call__(self, x: Tensor) -> Tensor:
        return kernel.rms_norm(x, self.weight, self._eps)

    def add(self, x: Tensor, residual: Tensor) -> Tensor:
        """Add `x` to `residual` in place and return the sum normalised."""
        return kernel.add_rms_norm(x, residual, self.weight, self._eps)
