"""int8 with a scale for each row, or for groups of it: read from files, or made of plain weights.

    w[n, k] = (q[n, k] - z[n, g]) * s[n, g]        g: the group of k

Weights only: activations stay fp32, where others quantise them too. Made with s = max|w[n]| / 127,
z = 0 and q rounded half to even, as EETQ does it.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from tgi_cli.kernels.linear import Codes
from tgi_cli.runtime.config.quantization import IntQuantized
from tgi_cli.runtime.layers.quantization.errors import BadTensorError
from tgi_cli.runtime.layers.quantization.grouped_codes import GroupedCodes, check_scales

LARGEST = 127


def read_int8(format: IntQuantized, tensors: Mapping[str, Tensor]) -> GroupedCodes:
    """Return the codes of compressed-tensors' int-quantized weight."""
    codes = _unsigned(tensors["weight"])
    scales = check_scales("weight_scale", tensors["weight_scale"])
    zeros = tensors.get("weight_zero_point")
    if zeros is None:
        zeros = torch.zeros_like(scales, dtype=torch.int8)
    if format.has_one_scale:
        scales, zeros = (each.expand(len(codes), 1) for each in (scales, zeros))
    return GroupedCodes(codes, _unsigned(zeros).int(), scales.contiguous(), bits=8)


def _unsigned(values: Tensor) -> Tensor:
    """Return int8 values plus 128, in uint8."""
    return values.view(torch.uint8) ^ 128


def quantize_int8(weight: Tensor) -> Codes:
    """Return `weight` [N, K] in int8, a scale for each row."""
    rows, largest = finite_rows(weight)
    scales = largest / LARGEST
    codes = (rows / divisors_of(scales)).round_().clamp_(-LARGEST, LARGEST).to(torch.int8)
    return Codes(codes, scales, None, rows.shape[1])


def divisors_of(scales: Tensor) -> Tensor:
    """Return `scales`, infinite where they are below fp32's normal numbers: codes of 0 then."""
    return torch.where(scales >= torch.finfo(torch.float32).tiny, scales, torch.inf)


def finite_rows(weight: Tensor) -> tuple[Tensor, Tensor]:
    """Return `weight` [N, K] in fp32, and the largest magnitude in each row [N, 1].

    Raises:
        BadTensorError: a number that isn't finite.
    """
    rows = weight.float()
    largest = rows.abs().amax(dim=1, keepdim=True)
    if not bool(largest.isfinite().all()):
        raise BadTensorError("weight", "a weight is infinite or not a number")
    return rows, largest
