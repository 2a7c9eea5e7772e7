"""Keys and values of a step to their slots in the paged cache."""

from __future__ import annotations

import torch

from tgi_cli.kernels.paged_attention import BLOCK_SIZE, kernel
from tools.kernels.roofline import Cost
from tools.kernels.workload import Call, Workload, randn


def _workload(num_tokens: int, kv_dtype: torch.dtype) -> Workload:
    num_kv_heads, head_dim, num_blocks = 8, 128, num_tokens // BLOCK_SIZE + 1

    def make(device: str) -> Call:
        kv = randn(num_tokens, 2, num_kv_heads, head_dim, dtype=torch.bfloat16, device=device)
        shape = (num_blocks, 2, num_kv_heads, BLOCK_SIZE, head_dim)
        cache = torch.zeros(shape, dtype=torch.bfloat16, device=device)
        if kv_dtype.itemsize == 1:
            cache = torch.zeros(shape, dtype=torch.uint8, device=device).view(kv_dtype)
        slots = torch.arange(num_tokens - 1, -1, -1, device=device)

        def run() -> tuple[torch.Tensor, ...]:
            kernel.store(kv, cache, slots)
            stored = cache.transpose(1, 3).reshape(-1, num_kv_heads, 2, head_dim)[slots]
            return (stored.transpose(1, 2),)

        def expect() -> tuple[torch.Tensor, ...]:
            return (kv.to(kv_dtype).float(),)

        return Call(run, expect)

    numbers = num_tokens * 2 * num_kv_heads * head_dim
    return Workload(
        op="kv_store",
        shape=f"{num_tokens} x 8 x 128, {str(kv_dtype).removeprefix('torch.')}",
        make=make,
        cost=Cost(numbers * (2 + kv_dtype.itemsize) + 8 * num_tokens),
        num_programs=num_tokens,
        bytes_in_flight=2 * 2 * num_kv_heads * head_dim,
        expected_fraction=0.7 if num_tokens > 1000 else 0.1,
        reason="a launch costs more than the bytes" if num_tokens < 1000 else "tails",
        needs_wide_loads=True,
    )


WORKLOADS = [
    _workload(16, torch.bfloat16),
    _workload(4096, torch.bfloat16),
    _workload(4096, torch.float8_e4m3fn),
]
