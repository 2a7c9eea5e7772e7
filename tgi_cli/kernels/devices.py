"""Where a tensor is, and so which implementation of an operation computes on it."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


def is_gpu(x: Tensor) -> bool:
    """Whether Triton's kernels compute on `x`. ROCm's devices go by the name of cuda, too."""
    return x.is_cuda
