"""The gate of a feed-forward block, gate and value side by side."""

from __future__ import annotations

import torch

from tgi_cli.kernels.gated_activation import kernel, reference
from tools.kernels.roofline import Cost
from tools.kernels.workload import Call, Workload, randn


def _workload(num_tokens: int, width: int, kind: str = "silu") -> Workload:
    def make(device: str) -> Call:
        x = randn(num_tokens, 2 * width, dtype=torch.bfloat16, device=device)
        return Call(
            lambda: (kernel.gated_activation(x, kind),),
            lambda: (reference.gated_activation(x.float(), kind),),
        )

    return Workload(
        op="gated_activation",
        shape=f"{num_tokens} x {width} {kind}",
        make=make,
        cost=Cost(3 * num_tokens * width * 2),
        num_programs=num_tokens * -(-width // 2048),
        bytes_in_flight=2 * 2048 * 2,
        expected_fraction=0.85 if num_tokens > 1000 else 0.15,
        reason="a launch costs more than the bytes" if num_tokens < 1000 else "tails",
        needs_wide_loads=True,
    )


WORKLOADS = [
    _workload(16, 14336),
    _workload(4096, 14336),
    _workload(4096, 14336, "gelu"),
    _workload(4096, 14336, "gelu_tanh"),
]
