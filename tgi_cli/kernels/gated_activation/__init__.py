"""SwiGLU's gate: silu(gate) * up, of one fused projection.

    y = gate * sigmoid(gate) * up

gate_up: [T, 2 * I] fp32, the gate in the first half; y: [T, I]. Memory bound.
Shazeer, GLU Variants Improve Transformer, arXiv:2002.05202.
"""

from __future__ import annotations

import torch
from torch import Tensor


def silu_and_mul(gate_up: Tensor) -> Tensor:
    """Return [T, I] for `gate_up` [T, 2 * I]."""
    gate, up = gate_up.chunk(2, dim=-1)
    return torch.nn.functional.silu(gate).mul_(up)
