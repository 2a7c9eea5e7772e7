"""Rows of the token embedding, widened to the residual stream."""

from __future__ import annotations

import torch

from tgi_cli.kernels.embedding import kernel
from tools.kernels.roofline import Cost
from tools.kernels.workload import Call, Workload, randn


def _workload(num_tokens: int, vocab_size: int, hidden: int) -> Workload:
    def make(device: str) -> Call:
        weight = randn(vocab_size, hidden, dtype=torch.bfloat16, device=device)
        ids = torch.arange(num_tokens, device=device) * 7919 % vocab_size
        return Call(
            lambda: (kernel.embed(ids, weight),), lambda: (weight.index_select(0, ids).float(),)
        )

    return Workload(
        op="embedding",
        shape=f"{num_tokens} of {vocab_size} x {hidden}",
        make=make,
        cost=Cost(num_tokens * (hidden * (2 + 4) + 8)),
        num_programs=num_tokens * -(-hidden // 2048),
        bytes_in_flight=2048 * 2,
        expected_fraction=0.75 if num_tokens > 1000 else 0.05,
        reason="a launch costs more than the bytes" if num_tokens < 1000 else "rows lie apart",
        needs_wide_loads=True,
    )


WORKLOADS = [_workload(16, 32000, 4096), _workload(4096, 32000, 4096)]
