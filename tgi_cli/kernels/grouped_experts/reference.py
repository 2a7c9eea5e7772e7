"""The slow twin of `grouped_experts`."""

from __future__ import annotations

import torch
from torch import Tensor

from tgi_cli.kernels.gated_activation import Activation, reference


def grouped_experts(
    x: Tensor,
    gate_up: Tensor,
    down: Tensor,
    weights: Tensor,
    experts: Tensor,
    activation: Activation = "silu",
) -> Tensor:
    y = torch.zeros_like(x)
    for token, (of_token, scales) in enumerate(zip(experts.tolist(), weights, strict=True)):
        for expert, scale in zip(of_token, scales, strict=True):
            both = x[token] @ gate_up[expert].T
            gated = reference.gated_activation(both[None], activation)[0]
            y[token] += scale * (gated @ down[expert].T)
    return y
