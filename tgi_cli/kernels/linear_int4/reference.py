"""The slow twin of `linear_int4`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from torch import Tensor

    from tgi_cli.kernels.linear import Codes


def linear_int4(x: Tensor, weight: Codes, bias: Tensor | None) -> Tensor:
    weights = weight.dequantize().to(x.dtype)
    return torch.nn.functional.linear(x, weights, None if bias is None else bias.to(x.dtype))
