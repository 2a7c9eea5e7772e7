"""GPTQ: round a weight column by column, and let the columns still to come make up for each error.

For W [N, K] and the Gram matrix H [K, K] of its inputs, it lowers tr((W - Q) H (W - Q)^T), the
mean over tokens of |W x - Q x|^2. With U the upper Cholesky factor of H^-1, column k's error
e_k = (w_k - q_k) / U_kk is taken from every later column j as e_k U_kj; what is lost in the end is
the sum of the squares of e. Frantar et al., GPTQ, arXiv:2210.17323.

Columns go in order of falling H_kk, and each group's scale is fixed before that, so that the file
needs no group index ("static groups"). With `true_order` groups are cut from the sorted columns
instead, and the file needs one: AutoGPTQ's `desc_act`.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from tgi_cli.runtime.config.quantize.options import DEFAULT_DAMP
from tgi_cli.runtime.quantize.clipping import fit_clipped
from tgi_cli.runtime.quantize.grid import Grid, QuantizedLinear
from tgi_cli.runtime.quantize.solver import Cost

_BLOCK = 128  # columns whose errors are gathered before they reach the columns after the block
_LEAST_DAMPING = 1e-6  # where doubling begins if none was asked for


class Gptq:
    """`damping` is the share of the diagonal's mean that is added to the Gram matrix; it is doubled
    until there is a factor.
    """

    def __init__(self, damping: float = DEFAULT_DAMP, *, true_order: bool = False) -> None:
        self._damping = damping
        self._true_order = true_order

    def round(self, weight: Tensor, gram: Tensor, grid: Grid) -> tuple[QuantizedLinear, float]:
        factor = factorize(gram, self._damping)
        return _round_columns(weight, factor, grid, self._true_order), factor.damping

    def cost(self, gram: Tensor) -> Cost:
        importance = factorize(gram, self._damping).importance

        def cost(error: Tensor) -> float:
            return float(error.square_().sum(0) @ importance)

        return cost


@dataclass(frozen=True, slots=True)
class Factor:
    """A damped Gram matrix, turned into what rounding needs.

    `order` [K]: columns, the most active first; `upper` [K, K]: the factor U of the inverse, in
    that order; `damping`: the share of the diagonal's mean that was added to it.
    """

    order: Tensor
    upper: Tensor
    damping: float

    @property
    def importance(self) -> Tensor:
        """What an error of each column costs once the later columns have made up for it, [K]."""
        importance = torch.empty_like(self.upper[0])
        importance[self.order] = self.upper.diagonal().square().reciprocal()
        return importance


def damped(gram: Tensor, damping: float) -> Tensor:
    """Return `gram` with `damping` times its diagonal's mean added to the diagonal."""
    result = gram.clone()
    mean = gram.diagonal().mean().clamp_min(torch.finfo(gram.dtype).tiny)
    result.diagonal().add_(damping * mean)
    return result


def factorize(gram: Tensor, damping: float) -> Factor:
    """Factorize the inverse of `gram` [K, K], damped until it has one."""
    order = torch.argsort(gram.diagonal(), descending=True, stable=True)
    sorted_gram = gram[order][:, order]
    while True:
        lower, failure = torch.linalg.cholesky_ex(damped(sorted_gram, damping))
        if not failure:
            inverse = torch.cholesky_inverse(lower)
            upper, failure = torch.linalg.cholesky_ex(inverse, upper=True)
            if not failure and bool(upper.isfinite().all()):
                return Factor(order, upper, damping)
        damping = max(2 * damping, _LEAST_DAMPING)


def _round_columns(weight: Tensor, factor: Factor, grid: Grid, true_order: bool) -> QuantizedLinear:
    num_in = weight.shape[1]
    order = factor.order
    group_of_rank = torch.arange(num_in, device=weight.device) // grid.width(num_in)
    group_index = None
    if true_order:
        scales, zeros = fit_clipped(weight[:, order], grid, factor.importance[order])
        groups = group_of_rank
        group_index = torch.empty_like(order, dtype=torch.int32)
        group_index[order] = groups.to(torch.int32)
    else:
        scales, zeros = fit_clipped(weight, grid, factor.importance)
        groups = group_of_rank[order]
    rows = weight[:, order].T.contiguous()  # [K, N]: a column is a contiguous row here
    codes = _round_rows(
        rows, factor.upper, scales.T[groups].float(), zeros.T[groups].float(), grid.max_code
    )
    unsorted = torch.empty(weight.shape, dtype=torch.uint8, device=weight.device)
    unsorted[:, order] = codes.T.to(torch.uint8)
    return QuantizedLinear(unsorted, scales, zeros, grid.bits, group_index)


def _round_rows(
    rows: Tensor, upper: Tensor, scales: Tensor, zeros: Tensor, max_code: int
) -> Tensor:
    """Return codes [K, N] for `rows` [K, N], which are used up; `scales`, `zeros` [K, N] fp32."""
    codes = torch.empty_like(rows)
    for start in range(0, len(rows), _BLOCK):
        block = rows[start : start + _BLOCK]
        stop = start + len(block)
        errors = torch.empty_like(block)
        for i, row in enumerate(block):
            k = start + i
            code = (row / scales[k]).round_().add_(zeros[k]).clamp_(0, max_code)
            codes[k] = code
            error = code.sub_(zeros[k]).mul_(scales[k]).sub_(row).div_(upper[k, k])  # minus e_k
            errors[i] = error
            block[i + 1 :].addr_(upper[k, k + 1 : stop], error)
        rows[stop:].addmm_(upper[start:stop, stop:].T, errors)
    return codes
