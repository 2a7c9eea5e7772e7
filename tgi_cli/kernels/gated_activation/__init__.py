"""SwiGLU's gate: silu(gate) * up, of one fused projection.

    y = gate * sigmoid(gate) * up

gate_up: [T, 2 * I] fp32, the gate in the first half; y: [T, I]. Memory bound. Native (`cpu.c`)
where it was built. Shazeer, GLU Variants Improve Transformer, arXiv:2002.05202.
"""

from __future__ import annotations

import torch
from torch import Tensor

from tgi_cli.kernels import native


def silu_and_mul(gate_up: Tensor) -> Tensor:
    """Return [T, I] for `gate_up` [T, 2 * I]."""
    if native.is_available() and gate_up.is_contiguous():
        num_tokens, size = gate_up.shape[0], gate_up.shape[1] // 2
        y = torch.empty(num_tokens, size, dtype=torch.float32)
        native.function("tgi_silu_and_mul", native.Pointer, native.Pointer, native.Int, native.Int)(
            gate_up.data_ptr(), y.data_ptr(), num_tokens, size
        )
        return y
    gate, up = gate_up.chunk(2, dim=-1)
    return torch.nn.functional.silu(gate).mul_(up)
