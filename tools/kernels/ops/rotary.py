"""Rotary embedding of queries and keys where they lie in the rows of qkv."""

from __future__ import annotations

import torch

from tgi_cli.kernels.rotary import kernel, reference
from tools.kernels.roofline import Cost
from tools.kernels.workload import Call, Workload, randn


def _workload(num_tokens: int, num_heads: int, num_kv_heads: int, head_dim: int) -> Workload:
    num_turned = num_heads + num_kv_heads

    def make(device: str) -> Call:
        width = num_turned + num_kv_heads
        qkv = randn(num_tokens, width, head_dim, dtype=torch.bfloat16, device=device)
        angles = randn(num_tokens, 1, head_dim // 2, device=device)
        cos, sin = angles.cos(), angles.sin()
        both_cos, signed_sin = torch.cat((cos, cos), -1), torch.cat((-sin, sin), -1)
        turned = qkv[:, :num_turned]

        def run() -> tuple[torch.Tensor, ...]:
            kernel.rotate_(turned, both_cos, signed_sin)
            return (turned,)

        expected = reference.rotate(turned.float(), cos, sin)
        return Call(run, lambda: (expected,))

    return Workload(
        op="rotary",
        shape=f"{num_tokens} x {num_heads}+{num_kv_heads} x {head_dim}",
        make=make,
        cost=Cost(num_tokens * head_dim * (2 * num_turned * 2 + 4)),
        num_programs=num_tokens * -(-num_turned // 8),
        bytes_in_flight=8 * head_dim * 2,
        expected_fraction=0.8 if num_tokens > 1000 else 0.1,
        reason="a launch costs more than the bytes" if num_tokens < 1000 else "tails",
        needs_wide_loads=True,
    )


WORKLOADS = [
    _workload(16, 32, 8, 128),
    _workload(4096, 32, 8, 128),
    _workload(4096, 32, 32, 80),
    _workload(4096, 16, 8, 256),
]
