"""Rotary position embedding, the half-split form of the Hugging Face checkpoints.

    y[i]         = x[i] * cos[i] - x[i + D/2] * sin[i]            i < D/2
    y[i + D/2]   = x[i + D/2] * cos[i] + x[i] * sin[i]

x, y: [T, H, D] fp32, any strides; on a GPU fp32, fp16 or bf16, heads contiguous; cos, signed_sin:
[T, 1, D] fp32, where signed_sin is -sin in its first half, so that y = x * cos + swap_halves(x) *
signed_sin. Memory bound. Native (`cpu.c`) where it was built; Triton (`kernel.py`) on a GPU.
Su et al., RoFormer, arXiv:2104.09864.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from tgi_cli.kernels import devices, native

if TYPE_CHECKING:
    from torch import Tensor


def rotate_(x: Tensor, cos: Tensor, signed_sin: Tensor) -> None:
    """Rotate every head of `x` [T, H, D] in place."""
    if devices.is_gpu(x):
        from . import kernel

        kernel.rotate_(x, cos, signed_sin)
        return
    num_tokens, num_heads, head_dim = x.shape
    if native.is_available() and x.stride()[1:] == (head_dim, 1):
        native.function(
            "tgi_rotate",
            *(native.Pointer, native.Int, native.Pointer, native.Pointer),
            *(native.Int, native.Int, native.Int),
        )(
            x.data_ptr(),
            x.stride(0),
            cos.data_ptr(),
            signed_sin.data_ptr(),
            num_tokens,
            num_heads,
            head_dim // 2,
        )
        return
    swapped = x.unflatten(-1, (2, head_dim // 2)).flip(2).view(num_tokens, num_heads, head_dim)
    x.mul_(cos).addcmul_(swapped, signed_sin)
