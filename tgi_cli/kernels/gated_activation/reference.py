"""The slow twin of `gated_activation`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch.nn import functional

if TYPE_CHECKING:
    from torch import Tensor


def gated_activation(x: Tensor, kind: str) -> Tensor:
    gate, value = x.chunk(2, dim=-1)
    if kind == "silu":
        return functional.silu(gate) * value
    return functional.gelu(gate, approximate="tanh" if kind == "gelu_tanh" else "none") * value
