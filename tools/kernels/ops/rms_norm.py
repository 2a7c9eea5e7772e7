"""Root mean square normalisation with the residual addition, as each layer does it twice."""

from __future__ import annotations

import torch

from tgi_cli.kernels.rms_norm import kernel, reference
from tools.kernels.roofline import Cost
from tools.kernels.workload import Call, Workload, randn


def _workload(num_tokens: int, hidden: int) -> Workload:
    def make(device: str) -> Call:
        x = randn(num_tokens, hidden, dtype=torch.bfloat16, device=device)
        residual = randn(num_tokens, hidden, device=device)
        weight = randn(hidden, device=device)
        out = torch.empty_like(x)
        before = residual.clone()

        def run() -> tuple[torch.Tensor, ...]:
            return (kernel.rms_norm(x, weight, 1e-5, residual=residual, out=out),)

        def expect() -> tuple[torch.Tensor, ...]:
            return (reference.add_rms_norm(x.float(), before.clone(), weight, 1e-5),)

        return Call(run, expect)

    return Workload(
        op="add_rms_norm",
        shape=f"{num_tokens} x {hidden}",
        make=make,
        # x once, the residual read and written, y written; the weight stays in the cache.
        cost=Cost(num_tokens * hidden * (2 + 4 + 4 + 2) + 4 * hidden),
        num_programs=num_tokens,
        bytes_in_flight=hidden * 6,
        expected_fraction=0.8 if num_tokens > 1000 else 0.1,
        reason="a launch costs more than the bytes" if num_tokens < 1000 else "tails",
        needs_wide_loads=True,
    )


WORKLOADS = [_workload(16, 4096), _workload(4096, 4096)]
