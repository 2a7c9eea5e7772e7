"""compressed-tensors' packed integers to codes. `config/quantization/compressed_tensors.py` has
shapes.

A row of weight_packed holds the codes of one output feature, weight_zero_point those of one group
down a column; both hold a signed value plus half of its range. Zero points in int8 are signed and
lie as the scales do. What is stored counts, also where the configuration says "symmetric".
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from tgi_cli.runtime.config.quantization import PackQuantized
from tgi_cli.runtime.layers.quantization.bit_stream import unpack
from tgi_cli.runtime.layers.quantization.errors import BadTensorError
from tgi_cli.runtime.layers.quantization.grouped_codes import GroupedCodes, check_scales, groups_of


def read_pack_quantized(format: PackQuantized, tensors: Mapping[str, Tensor]) -> GroupedCodes:
    """Return the codes that the tensors of one projection hold."""
    codes = unpack(tensors["weight_packed"], format.bits)
    scales = check_scales("weight_scale", tensors["weight_scale"])
    if format.has_one_scale:
        scales = scales.expand(codes.shape[0])[:, None]
    zeros = torch.full(scales.shape, 1 << (format.bits - 1), dtype=torch.int32)
    if "weight_zero_point" in tensors:
        zeros = _zeros(tensors["weight_zero_point"], format.bits, zeros)
    groups = groups_of("weight_g_idx", tensors.get("weight_g_idx"), scales.shape[1])
    return GroupedCodes(codes, zeros, scales.contiguous(), format.bits, groups)


def _zeros(stored: Tensor, bits: int, middles: Tensor) -> Tensor:
    """Return the zero points [N, G], of which `middles` are those of symmetric weights."""
    if stored.dtype == torch.int8:
        zeros = stored.int().view(-1, middles.shape[1]) + middles
        fits = len(stored) in (1, len(middles)) and not bool((zeros >> bits).any())
    else:
        zeros = unpack(stored.T.contiguous(), bits)[:, : len(middles)].T.int().contiguous()
        fits = zeros.shape == middles.shape
    if not fits:
        raise BadTensorError("weight_zero_point", f"it holds no zero points of {bits} bits")
    return zeros
