"""Root mean square normalisation, alone or after a residual addition.

    h = x + residual                                  (written to residual)
    y = h / sqrt(mean(h_i^2) + eps) * weight

x, residual, y: [..., H] fp32; weight: [H] fp32. Memory bound. Native (`cpu.c`) where it was built.
Zhang and Sennrich, Root Mean Square Layer Normalization, arXiv:1910.07467.
"""

from __future__ import annotations

import torch
from torch import Tensor

from tgi_cli.kernels import native


def rms_norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    """Return `x` normalised over its last axis."""
    if native.is_available():
        return _native(x.contiguous(), None, weight, eps)
    return torch.nn.functional.rms_norm(x, weight.shape, weight, eps)


def add_rms_norm(x: Tensor, residual: Tensor, weight: Tensor, eps: float) -> Tensor:
    """Add `x` to `residual` in place and return the sum normalised."""
    if native.is_available():
        assert residual.is_contiguous(), residual.stride()
        return _native(x.contiguous(), residual, weight, eps)
    return torch.nn.functional.rms_norm(residual.add_(x), weight.shape, weight, eps)


def _native(x: Tensor, residual: Tensor | None, weight: Tensor, eps: float) -> Tensor:
    y = torch.empty_like(x)
    hidden = x.shape[-1]
    native.function(
        "tgi_rms_norm",
        *(native.Pointer, native.Int, native.Pointer, native.Pointer, native.Pointer),
        *(native.Int, native.Int, native.Float),
    )(
        x.data_ptr(),
        hidden,
        None if residual is None else residual.data_ptr(),
        weight.data_ptr(),
        y.data_ptr(),
        x.numel() // hidden,
        hidden,
        eps,
    )
    return y
