"""8-bit floats (e4m3), scales for a tensor, its rows or blocks: read, or made of plain weights.

    w[n, k] = q[n, k] * s        s: of the tensor, of n, or of the block of n and k

Weights only: activations stay fp32. Made with s = max|w[n]| / 448 and q rounded half to even.
Micikevicius et al., FP8 Formats for Deep Learning, arXiv:2209.05433.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from tgi_cli.kernels.linear import Codes
from tgi_cli.runtime.config.quantization import Fp8
from tgi_cli.runtime.layers.quantization.errors import BadTensorError
from tgi_cli.runtime.layers.quantization.grouped_codes import check_scales
from tgi_cli.runtime.layers.quantization.int8 import divisors_of, finite_rows

LARGEST = 448.0


def read_fp8(format: Fp8, tensors: Mapping[str, Tensor]) -> Codes:
    """Return the matrix that the tensors of one projection describe."""
    codes = tensors["weight"]
    num_out, num_in = codes.shape
    if bool(codes.view(torch.uint8).bitwise_and(0x7F).eq(0x7F).any()):
        raise BadTensorError("weight", "a weight is not a number")
    scales = check_scales(format.scale_name, tensors[format.scale_name]).float()
    group_size = num_in
    if format.scales_of == "block":
        block_out, group_size = format.block
        scales = scales.repeat_interleave(block_out, 0)[:num_out]
    elif scales.numel() == 1:
        scales = scales.reshape(1, 1).expand(num_out, 1)
    return Codes(codes, scales.reshape(num_out, -1).contiguous(), None, group_size)


def quantize_fp8(weight: Tensor) -> Codes:
    """Return `weight` [N, K] in e4m3, a scale for each row."""
    rows, largest = finite_rows(weight)
    scales = largest / LARGEST
    # Clamped, because a quotient may come out a little above the largest number, which is NaN's.
    codes = (rows / divisors_of(scales)).clamp_(-LARGEST, LARGEST).to(torch.float8_e4m3fn)
    return Codes(codes, scales, None, rows.shape[1])
