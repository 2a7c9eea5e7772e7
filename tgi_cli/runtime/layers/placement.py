"""Where a model's layers hold their weights and compute, and what passes between them."""

from __future__ import annotations

from dataclasses import dataclass

import torch


@dataclass(frozen=True, slots=True)
class Placement:
    """`uses_triton` says which kernels the weights are packed for: Triton's, or the CPU's own.

    The residual stream and the scores are fp32 everywhere.
    """

    device: torch.device
    activation_dtype: torch.dtype  # of what layers hand each other
    uses_triton: bool


CPU = Placement(torch.device("cpu"), torch.float32, uses_triton=False)


def on_gpu(device: torch.device, dtype: torch.dtype) -> Placement:
    """Return the placement on `device`, with activations in the weights' type.

    `dtype` is fp16 or bf16: tensor cores multiply no wider numbers without rounding them.
    """
    assert dtype in (torch.float16, torch.bfloat16), dtype
    return Placement(device, dtype, uses_triton=True)
