"""The gate of a feed-forward block, after one product has made gate and value side by side.

    y[t, i] = act(x[t, i]) * x[t, I + i]

    silu:       act(g) = g / (1 + exp(-g))
    gelu:       act(g) = g / 2 * (1 + erf(g / sqrt 2))
    gelu_tanh:  act(g) = g / 2 * (1 + tanh(sqrt(2 / pi) * (g + 0.044715 g^3)))

x: [T, 2 * I]; y: [T, I], of x's type; arithmetic fp32. Memory bound. Triton (`kernel.py`) on a GPU;
the CPU's products have it in their own epilogue (`kernels.linear`), so there the reference serves.
Shazeer, GLU Variants Improve Transformer, arXiv:2002.05202.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from tgi_cli.kernels import devices

from . import reference

if TYPE_CHECKING:
    from torch import Tensor

Activation = Literal["silu", "gelu", "gelu_tanh"]


def gated_activation(x: Tensor, kind: Activation) -> Tensor:
    """Return [T, I] for `x` [T, 2 * I], whose first half gates the second."""
    if devices.is_gpu(x):
        from . import kernel

        return kernel.gated_activation(x, kind)
    return reference.gated_activation(x.float(), kind).to(x.dtype)
