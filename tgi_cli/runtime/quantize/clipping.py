"""Choose each group's scale and zero point by what rounding costs, not by the range alone.

A narrower grid clips the largest weights and is finer for all others: AWQ's clip search (Lin et
al., arXiv:2306.00978, section 4), with a column's cost taken from statistics of its input.
"""

from __future__ import annotations

import torch
from torch import Tensor

from tgi_cli.runtime.quantize.grid import Grid

_SHRINKS = tuple(1 - 0.04 * step for step in range(13))  # of the range: 1 down to 0.52


def fit_clipped(weight: Tensor, grid: Grid, importance: Tensor) -> tuple[Tensor, Tensor]:
    """Return scales (fp16) and zeros (uint8), [N, G], with the least of the costs tried.

    `weight` [N, K] fp32. The cost of a group is the sum over its columns of the squared error times
    the column's `importance` [K].
    """
    width = grid.width(weight.shape[1])
    groups = weight.unflatten(1, (-1, width))  # [N, G, width]
    costs = importance.view(-1, width)
    best_scales, best_zeros = grid.fit(weight)
    best = torch.full_like(groups[..., 0], torch.inf)
    for shrink in _SHRINKS:
        scales, zeros = grid.fit(weight * shrink)
        s, z = scales[..., None].float(), zeros[..., None]
        error = grid.round(groups, s, z).sub_(z).mul_(s).sub_(groups)
        cost = error.square_().mul_(costs).sum(-1)
        is_better = cost < best
        best = torch.where(is_better, cost, best)
        best_scales = torch.where(is_better, scales, best_scales)
        best_zeros = torch.where(is_better, zeros, best_zeros)
    return best_scales, best_zeros
