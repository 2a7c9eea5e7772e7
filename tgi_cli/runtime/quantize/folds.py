"""Where the scales of a weight's inputs go: into what makes those inputs.

The float model stays what it was. A norm's weight is divided by the scales; so are the rows of the
projection before, which on a grid means its scales, so that no code of it changes.

K features are scaled, each made by one row of the projection before: where the heads that share a
value would have to share its scales, they stay as they are.
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


def usable_for_rows(scales: Tensor, linear: QuantizedLinear, bias: Tensor | None) -> Tensor:
    """Return scales near `scales` [K] that the rows [K] of the projection before can take.

    Its fp16 scales must keep their bits; and with a bias, which is stored rounded, only powers of
    two divide exactly.
    """
    if bias is not None:
        scales = scales.log2().round().exp2()
    stored = linear.scales.float()
    most = stored.amin(1) / _SMALLEST_NORMAL
    least = stored.amax(1) / _LARGEST
    return torch.where((scales <= most) & (scales >= least), scales, 1.0)


def divide_rows(scales: Tensor, linear: QuantizedLinear) -> QuantizedLinear:
    """Return `linear` with each row [N] divided by its scale of `scales` [N]."""
    return replace(linear, scales=(linear.scales.float() / scales[:, None]).half())
