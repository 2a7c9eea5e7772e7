"""Root mean square normalisation, alone or after a residual addition.

    h = x + residual                                  (written to residual)
    y = h / sqrt(mean(h_i^2) + eps) * weight

x, residual, y: [..., H] fp32; weight: [H] fp32; on a GPU x, residual and y are each fp32, fp16 or
bf16. Memory bound. Native (`cpu.c`) where it was built; Triton (`kernel.py`) on a GPU.
Zhang and Sennrich, Root Mean Square Layer Normalization, arXiv:1910.07467.
"""

from __future__ import annotations

import torch
from torch import Tensor

from tgi_cli.kernels import devices, native


def rms_norm(
    x: Tensor, weight: Tensor, eps: float, *, out_dtype: torch.dtype | None = None
) -> Tensor:
    """Return `x` normalised over its last axis, in `out_dtype` or x's own type."""
    if devices.is_gpu(x):
        return _triton(x, None, weight, eps, out_dtype)
    if native.is_available():
        return _native(x.contiguous(), None, weight, eps)
    return torch.nn.functional.rms_norm(x, weight.shape, weight, eps)


def add_rms_norm(
    x: Tensor, residual: Tensor, weight: Tensor, eps: float, *, out_dtype: torch.dtype | None = None
) -> Tensor:
    """Add `x` to `residual` in place and return the sum normalised, typed as `rms_norm`'s."""
    if devices.is_gpu(x):
        return _triton(x, residual, weight, eps, out_dtype)
    if native.is_available():
        assert residual.is_contiguous(), residual.stride()
        return _native(x.contiguous(), residual, weight, eps)
    return torch.nn.functional.rms_norm(residual.add_(x), weight.shape, weight, eps)


def norm_heads_(
    x: Tensor, q_weight: Tensor, k_weight: Tensor, num_q_heads: int, eps: float
) -> None:
    """Normalise every head of `x` [T, H, D] in place, the first by `q_weight` [D], the rest by k's.

    Tokens may be apart, as queries and keys in a row of qkv are; on a GPU it is one launch.
    """
    if devices.is_gpu(x):
        from . import kernel

        kernel.norm_heads_(x, q_weight, k_weight, num_q_heads, eps)
        return
    for heads, weight in ((x[:, :num_q_heads], q_weight), (x[:, num_q_heads:], k_weight)):
        heads.copy_(rms_norm(heads, weight, eps))


def _triton(
    x: Tensor,
    residual: Tensor | None,
    weight: Tensor,
    eps: float,
    out_dtype: torch.dtype | None,
) -> Tensor:
    from . import kernel

    y = torch.empty(x.shape, dtype=out_dtype or x.dtype, device=x.device)
    hidden = x.shape[-1]
    flat_residual = None if residual is None else residual.view(-1, hidden)
    kernel.rms_norm(
        x.reshape(-1, hidden), weight, eps, residual=flat_residual, out=y.view(-1, hidden)
    )
    return y


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
