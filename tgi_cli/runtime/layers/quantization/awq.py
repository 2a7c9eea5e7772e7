"""AWQ: from AutoAWQ's GEMM tensors to codes. `config/quantization/awq.py` has shapes.

A word holds eight neighbouring output features of one input feature, the even ones first.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from tgi_cli.runtime.config.quantization import Awq
from tgi_cli.runtime.layers.quantization.bit_stream import unpack
from tgi_cli.runtime.layers.quantization.grouped_codes import GroupedCodes, check_scales

_FEATURE_OF_NIBBLE = (0, 2, 4, 6, 1, 3, 5, 7)


def read_awq(format: Awq, tensors: Mapping[str, Tensor]) -> GroupedCodes:
    """Return the codes that the tensors of one projection hold."""
    return GroupedCodes(
        codes=_features(tensors["qweight"]).T.contiguous(),
        zeros=_features(tensors["qzeros"]).T.int().contiguous(),
        scales=check_scales("scales", tensors["scales"]).T.contiguous(),
        bits=4,
    )


def _features(words: Tensor) -> Tensor:
    """Return the codes [..., N] of `words` [..., N / 8]."""
    nibbles = unpack(words, 4).unflatten(-1, (-1, 8))
    features = torch.empty_like(nibbles)
    features[..., _FEATURE_OF_NIBBLE] = nibbles
    return features.flatten(-2)
