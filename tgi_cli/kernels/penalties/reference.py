"""The slow twin of the changes, of one row."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from tgi_cli.kernels.penalties import LARGEST
from tgi_cli.kernels.sampling.settings import Field


def changed(
    row: Tensor,
    settings: Tensor,
    counts: Tensor,
    bitmask: Tensor,
    bias_ids: Tensor,
    biases: Tensor,
) -> Tensor:
    """Return `row` [V] after penalties, biases and bitmask; counts: [V]; bitmask: [W] int32."""
    repetition = float(settings[Field.REPETITION])
    times = counts // 2
    if repetition != 1.0:
        scaled = torch.where(row < 0, row * repetition, row / repetition)
        row = torch.where(counts > 0, scaled.clamp(-LARGEST, LARGEST), row)
    row = row - settings[Field.FREQUENCY].to(row.dtype) * times
    row = row - settings[Field.PRESENCE].to(row.dtype) * (times > 0)
    row = row.index_add(0, bias_ids, biases.to(row.dtype))
    bits = bitmask[:, None] >> torch.arange(32, dtype=torch.int32, device=row.device) & 1
    is_allowed = torch.zeros(len(row), dtype=torch.bool, device=row.device)
    num_known = min(bits.numel(), len(row))
    is_allowed[:num_known] = bits.flatten()[:num_known].bool()
    return row.masked_fill(~is_allowed, -math.inf)


def without(row: Tensor, end_ids: Tensor) -> Tensor:
    """Return `row` [V] with `end_ids` ruled out, unless nothing else is left."""
    rest = row.index_fill(0, end_ids.long(), -math.inf)
    return rest if bool((rest > -math.inf).any()) else row
