"""The slow twin of `linear_codes`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from tgi_cli.kernels.quantize_fp8 import reference

if TYPE_CHECKING:
    from torch import Tensor

    from tgi_cli.kernels.linear import Codes


def linear_codes(x: Tensor, weight: Codes, bias: Tensor | None) -> Tensor:
    rows = weight.dequantize().to(x)
    return torch.nn.functional.linear(x, rows, None if bias is None else bias.to(x))


def linear_codes_in_fp8(x: Tensor, weight: Codes, bias: Tensor | None) -> Tensor:
    """Return the product of x as fp8 has it."""
    codes, scales = reference.quantize_fp8(x)
    return linear_codes(codes.to(x.dtype) * scales[:, None].to(x.dtype), weight, bias)
