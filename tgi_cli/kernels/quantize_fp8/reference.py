"""The slow twin of `quantize_fp8`."""

from __future__ import annotations

import torch
from torch import Tensor

from . import LARGEST, SMALLEST_MAX


def quantize_fp8(x: Tensor) -> tuple[Tensor, Tensor]:
    rows = x.float()
    largest = rows.abs().amax(1).clamp(min=SMALLEST_MAX)
    inverse = torch.full_like(largest, LARGEST) / largest  # a number over a tensor rounds twice
    codes = (rows * inverse[:, None]).to(torch.float8_e4m3fn)
    return codes, largest / LARGEST
