"""Rows of activations in fp8 (e4m3), each by its largest number.

    scale[t] = max|x[t]| / 448        q[t] = x[t] / scale[t], rounded half to even

x: [T, K] fp16, bf16 or fp32; q: [T, K] float8_e4m3fn; scales: [T] fp32, never zero. A number that
isn't finite makes NaNs, in its own row only.
Micikevicius et al., FP8 Formats for Deep Learning, arXiv:2209.05433.
"""

from __future__ import annotations

import torch
from torch import Tensor

LARGEST = 448.0
SMALLEST_MAX = 1e-30  # of a row: the scale and its inverse are normal numbers then


def quantize_fp8(x: Tensor) -> tuple[Tensor, Tensor]:
    """Return codes [T, K] and scales [T] of `x` [T, K]; T is at least 1."""
    from . import kernel

    codes = torch.empty(x.shape, dtype=torch.float8_e4m3fn, device=x.device)
    scales = torch.empty(x.shape[0], dtype=torch.float32, device=x.device)
    kernel.quantize_fp8(x, codes=codes, scales=scales)
    return codes, scales
