"""Where the scales of a weight's inputs go: into what makes those inputs.

The float model stays what it was. A norm's weight is divided by the scales; so are the rows of the
projection before, which on a grid means its scales, so that no code of it changes.

K features are scaled; where keys and values have fewer heads than queries, the heads that share a
value share its scales.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from tgi_cli.runtime.quantize.grid import QuantizedLinear

_SMALLEST_NORMAL = 2.0**-14  # of fp16: below it numbers lose bits
_LARGEST = 65504.0


def usable_for_norm(scales: Tensor, norm: Tensor) -> tuple[Tensor, Tensor]:
    """Return scales near `scales` [K] and the norm's weight [K] divided by them.

    The new weight has bfloat16's bits in fp16's range, so that every type stores it exactly, and
    the scales are what the division then really was.
    """
    divided = (norm / scales).bfloat16().float()
    magnitude = divided.abs()
    fits = (magnitude >= _SMALLEST_NORMAL) & (magnitude <= _LARGEST)
    return torch.where(fits, norm / divided, 1.0), torch.where(fits, divided, norm)


def usable_for_rows(
    scales: Tensor, linear: QuantizedLinear, bias: Tensor | None, num_sharing: int, head_dim: int
) -> Tensor:
    """Return scales near `scales` [K] that the rows [N] of the projection before can take.

    Row n of it makes the feature of the same number in each of the `num_sharing` heads that read
    its head of `head_dim` features. Its fp16 scales must keep their bits; and with a bias, which is
    stored rounded, only powers of two divide exactly.
    """
    by_row = scales.view(-1, num_sharing, head_dim).log().mean(1).exp().flatten()  # [N]
    if bias is not None:
        by_row = by_row.log2().round().exp2()
    stored = linear.scales.float()
    most = stored.amin(1) / _SMALLEST_NORMAL
    least = stored.amax(1) / _LARGEST
    by_row = torch.where((by_row <= most) & (by_row >= least), by_row, 1.0)
    return spread_rows(by_row, num_sharing, head_dim)


def spread_rows(by_row: Tensor, num_sharing: int, head_dim: int) -> Tensor:
    """Return [K] for the features that rows [N] make, each row for `num_sharing` of them."""
    return by_row.view(-1, 1, head_dim).expand(-1, num_sharing, -1).flatten()


def divide_rows(
    scales: Tensor, linear: QuantizedLinear, num_sharing: int, head_dim: int
) -> tuple[QuantizedLinear, Tensor]:
    """Return `linear` with each row divided by its scale of `scales` [K], and those by row [N]."""
    by_row = scales.view(-1, num_sharing, head_dim)[:, 0].flatten()
    return replace(linear, scales=(linear.scales.float() / by_row[:, None]).half()), by_row
