"""Aim a projection at what the original model computes, from the inputs that it gets now.

The layers quantised before have changed the input x of a projection from x', and the residual
stream that it adds to, which now lags d behind. The weight that makes up for both as far as a
weight can is the least-squares solution of W* x = W x' + d over calibration tokens, and rounding
then aims at W* instead of W:

    W* = W + (W (C - H) + D) (H + damping)^-1,   H = x x^T, C = x' x^T, D = d x^T, mean over tokens

Damping draws W* to W where the calibration text says little. The same aim, folded into the
rounding: Li et al., GPTAQ, arXiv:2504.02692; Zhang et al., Qronos, arXiv:2505.11695.
"""

from __future__ import annotations

import torch
from torch import Tensor

from tgi_cli.runtime.quantize.gptq import damped
from tgi_cli.runtime.quantize.statistics import InputStatistics


def corrected(weight: Tensor, statistics: InputStatistics, damping: float) -> Tensor:
    """Return W* [N, K] for `weight` [N, K] fp32; the weight itself without an original stream.

    `damping` is a share of the Gram matrix's mean diagonal.
    """
    cross, gram = statistics.cross, statistics.gram
    if cross is None:
        return weight
    wanted = weight @ (cross - gram)
    if statistics.lag is not None:
        wanted += statistics.lag
    lower, failure = torch.linalg.cholesky_ex(damped(gram, damping))
    if failure:  # inputs that leave no unique answer are no ground to move a weight
        return weight
    return weight + torch.cholesky_solve(wanted.T, lower).T
