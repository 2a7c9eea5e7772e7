"""AWQ: scale up the input features that matter before rounding, and their inputs down.

A column scaled by s whose input is scaled by 1 / s gives the same product, but its rounding error
counts 1 / s as much; its group's range grows, and with it the error of the others. Candidates are
s = mean|x|^r. Lin et al., AWQ, arXiv:2306.00978, run the layer for each; here the loss of one is
what the rounder says of D = W - Q(W s) / s (`Rounder.cost`).

W [N, K] are all weights that read the same input, one above the other.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from tgi_cli.runtime.quantize.clipping import fit_clipped
from tgi_cli.runtime.quantize.grid import Grid, QuantizedLinear, round_to_grid
from tgi_cli.runtime.quantize.solver import Cost

ToUsable = Callable[[Tensor], Tensor]  # from the scales that a search would like to those it gets

_EXPONENTS = tuple(step / 10 for step in range(11))
_REACH = 100.0  # the largest scale, and one over the smallest


class ClippedRounding:
    """Round to the nearest code, on grids whose clipping has the least error: AWQ's own rounding.

    A column's error counts by its input's mean square, the Gram matrix's diagonal.
    """

    def round(self, weight: Tensor, gram: Tensor, grid: Grid) -> tuple[QuantizedLinear, None]:
        scales, zeros = fit_clipped(weight, grid, gram.diagonal())
        width = grid.width(weight.shape[1])
        by_column = scales.repeat_interleave(width, 1), zeros.repeat_interleave(width, 1)
        codes = grid.round(weight, *by_column).to(torch.uint8)
        return QuantizedLinear(codes, scales, zeros, grid.bits), None

    def cost(self, gram: Tensor) -> Cost:
        def cost(error: Tensor) -> float:
            return float((error @ gram).mul_(error).sum())

        return cost


def search_scales(
    weight: Tensor, magnitude: Tensor, cost: Cost, grid: Grid, to_usable: ToUsable
) -> Tensor:
    """Return the scales [K] with the least `cost` after rounding to the nearest; 1 is among them.

    `weight` [N, K]; `magnitude` [K]: mean |x|. Each candidate is given to `to_usable` first, for a
    fold may not be able to take every scale.
    """
    best = to_usable(torch.ones_like(magnitude))
    best_cost = torch.inf
    for exponent in _EXPONENTS:
        scales = to_usable(_power(magnitude, exponent))
        error = round_to_grid(weight * scales, grid).dequantize().div_(scales).sub_(weight)
        candidate_cost = cost(error)
        if candidate_cost < best_cost:
            best, best_cost = scales, candidate_cost
    return best


def _power(magnitude: Tensor, exponent: float) -> Tensor:
    """Return magnitude^exponent [K], with 1 halfway between its largest and its smallest."""
    scales = magnitude.clamp_min(torch.finfo(magnitude.dtype).tiny).pow(exponent)
    scales = scales / (scales.max() * scales.min()).sqrt()
    return scales.clamp(1 / _REACH, _REACH)
