"""Improve a rounded weight: move codes one column at a time, and fit scales by least squares.

Both lower tr((W - Q) H (W - Q)^T) exactly, with everything else held fixed, so no step makes it
worse but for the scales' rounding to fp16; a step that did is taken back row by row.

Coordinate descent on codes: Behdin et al., QuantEase, arXiv:2309.01885.
"""

from __future__ import annotations

import torch
from torch import Tensor

from tgi_cli.runtime.quantize.grid import QuantizedLinear

_BLOCK = 128


def refine(
    linear: QuantizedLinear, weight: Tensor, gram: Tensor, num_sweeps: int
) -> QuantizedLinear:
    """Return `linear`, nearer to `weight` [N, K] fp32 under `gram` [K, K]; both steps, in turns."""
    for _ in range(num_sweeps):
        linear = refit_scales(linear, weight, gram)
        linear = move_codes(linear, weight, gram)
    return refit_scales(linear, weight, gram)


def row_losses(linear: QuantizedLinear, weight: Tensor, gram: Tensor) -> Tensor:
    """Return each row's (w - q) H (w - q)^T, [N]."""
    error = weight - linear.dequantize()
    return ((error @ gram) * error).sum(1)


def move_codes(linear: QuantizedLinear, weight: Tensor, gram: Tensor) -> QuantizedLinear:
    """Give each column in turn the codes that are best with all other columns as they are."""
    scales = linear.per_feature(linear.scales).float().T.contiguous()  # [K, N]
    zeros = linear.per_feature(linear.zeros).float().T.contiguous()
    codes = linear.codes.T.float()
    max_code = (1 << linear.bits) - 1
    pull = gram @ (weight - linear.dequantize()).T  # [K, N]: minus half the loss's gradient
    for start in range(0, len(codes), _BLOCK):
        stop = min(start + _BLOCK, len(codes))
        block = pull[start:stop]
        moves = torch.zeros_like(block)
        for i in range(stop - start):
            k = start + i
            curvature = gram[k, k]
            if curvature <= 0:
                continue
            weights = (codes[k] - zeros[k]).mul_(scales[k])
            code = (weights + block[i] / curvature).div_(scales[k]).round_().add_(zeros[k])
            code.clamp_(0, max_code)
            move = (code - codes[k]).mul_(scales[k])
            codes[k] = code
            moves[i] = move
            block.addr_(gram[start:stop, k], move, alpha=-1)
        pull[:start].addmm_(gram[:start, start:stop], moves, alpha=-1)
        pull[stop:].addmm_(gram[stop:, start:stop], moves, alpha=-1)
    return QuantizedLinear(
        codes.T.to(torch.uint8).contiguous(),
        linear.scales,
        linear.zeros,
        linear.bits,
        linear.group_index,
    )


def refit_scales(linear: QuantizedLinear, weight: Tensor, gram: Tensor) -> QuantizedLinear:
    """Fit all scales of a row at once by least squares, codes and zeros as they are.

    With D_n [G, K] the row's (code - zero), each in its group: (D_n H D_n^T) s_n = D_n H w_n.
    """
    num_out, num_groups = linear.scales.shape
    num_in = weight.shape[1]
    steps = linear.codes.float() - linear.per_feature(linear.zeros).float()  # [N, K]
    groups = _groups(linear, num_in, num_groups)
    normal = torch.empty(num_out, num_groups, num_groups, device=weight.device)
    for index, columns in enumerate(groups):
        pushed = steps * (steps[:, columns] @ gram[columns])  # [N, K]
        for other, others in enumerate(groups):
            normal[:, index, other] = pushed[:, others].sum(1)
    target = steps * (weight @ gram)
    right = torch.stack([target[:, columns].sum(1) for columns in groups], 1)  # [N, G]
    diagonal = normal.diagonal(dim1=1, dim2=2)
    # A little of what the scales are now: rows of zeros, and groups that say the same thing twice.
    ridge = (
        1e-4 * diagonal + 1e-12 * diagonal.amax(1, keepdim=True) + torch.finfo(torch.float32).tiny
    )
    right = right + ridge * linear.scales.float()
    normal = normal + torch.diag_embed(ridge)
    fitted = torch.linalg.solve_ex(normal, right)[0]
    is_usable = (
        torch.isfinite(fitted) & (fitted > 0.5 * linear.scales) & (fitted < 2 * linear.scales)
    )
    scales = torch.where(is_usable.all(1, keepdim=True), fitted, linear.scales.float()).half()
    refitted = QuantizedLinear(linear.codes, scales, linear.zeros, linear.bits, linear.group_index)
    is_better = row_losses(refitted, weight, gram) < row_losses(linear, weight, gram)
    scales = torch.where(is_better[:, None], scales, linear.scales)
    return QuantizedLinear(linear.codes, scales, linear.zeros, linear.bits, linear.group_index)


def _groups(linear: QuantizedLinear, num_in: int, num_groups: int) -> list[Tensor]:
    """Return the columns of each group."""
    columns = torch.arange(num_in, device=linear.codes.device)
    if linear.group_index is None:
        return list(columns.view(num_groups, -1))
    return [columns[linear.group_index == group] for group in range(num_groups)]
