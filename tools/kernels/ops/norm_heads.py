"""Head norms of queries and keys, in place, one launch for both."""

from __future__ import annotations

import torch

from tgi_cli.kernels.rms_norm import kernel, reference
from tools.kernels.roofline import Cost
from tools.kernels.workload import Call, Workload, randn


def _workload(num_tokens: int, num_heads: int, num_kv_heads: int, head_dim: int) -> Workload:
    num_normed = num_heads + num_kv_heads

    def make(device: str) -> Call:
        width = num_normed + num_kv_heads
        qkv = randn(num_tokens, width, head_dim, dtype=torch.bfloat16, device=device)
        q_weight, k_weight = randn(head_dim, device=device), randn(head_dim, device=device)
        normed = qkv[:, :num_normed]

        def run() -> tuple[torch.Tensor, ...]:
            kernel.norm_heads_(normed, q_weight, k_weight, num_heads, 1e-6)
            return (normed,)

        expected = torch.cat(
            (
                reference.rms_norm(normed[:, :num_heads].float(), q_weight, 1e-6),
                reference.rms_norm(normed[:, num_heads:].float(), k_weight, 1e-6),
            ),
            dim=1,
        )
        return Call(run, lambda: (expected,))

    return Workload(
        op="norm_heads",
        shape=f"{num_tokens} x {num_heads}+{num_kv_heads} x {head_dim}",
        make=make,
        cost=Cost(num_tokens * head_dim * 2 * num_normed * 2 + 8 * head_dim),
        num_programs=num_tokens * -(-num_normed // 16),
        bytes_in_flight=16 * head_dim * 2,
        expected_fraction=0.8 if num_tokens > 1000 else 0.1,
        reason="a launch costs more than the bytes" if num_tokens < 1000 else "tails",
        needs_wide_loads=True,
    )


WORKLOADS = [
    _workload(16, 32, 8, 128),
    _workload(4096, 32, 8, 128),
    _workload(4096, 16, 8, 256),
]
