"""Adapters of q, k and v of a Llama of 8 billion parameters, eight in one batch."""

from __future__ import annotations

import torch

from tgi_cli.kernels import grouped_lora
from tgi_cli.kernels.grouped_lora import reference
from tools.kernels.roofline import Cost
from tools.kernels.workload import Call, Workload, randn

_NUM_IN, _WIDTHS, _NUM_ADAPTERS = 4096, (4096, 1024, 1024), 8
_NUM_OUT = sum(_WIDTHS)


def _workload(num_tokens: int, rank: int) -> Workload:
    def make(device: str) -> Call:
        x = randn(num_tokens, _NUM_IN, dtype=torch.bfloat16, device=device)
        y = randn(num_tokens, _NUM_OUT, dtype=torch.bfloat16, device=device)
        of_rows = torch.arange(num_tokens, dtype=torch.int32, device=device) % _NUM_ADAPTERS
        adapters = [
            [
                (
                    randn(rank, _NUM_IN, dtype=x.dtype, device=device, scale=_NUM_IN**-0.5),
                    randn(width, rank, dtype=x.dtype, device=device, scale=rank**-0.5),
                )
                for width in _WIDTHS
            ]
            for _ in range(_NUM_ADAPTERS)
        ]
        packed = grouped_lora.pack(adapters, _WIDTHS, _NUM_IN, device=device, dtype=x.dtype)

        def run() -> tuple[torch.Tensor, ...]:
            out = y.clone()
            grouped_lora.add_lora(x, packed, of_rows, out)
            return (out,)

        def expect() -> tuple[torch.Tensor, ...]:
            out = y.float()
            reference.add_lora(x.float(), adapters, _WIDTHS, of_rows, out)
            return (out,)

        return Call(run, expect)

    used = min(num_tokens, _NUM_ADAPTERS)
    is_large = num_tokens > 1000
    return Workload(
        op="grouped_lora",
        shape=f"{num_tokens} of rank {rank}",
        make=make,
        cost=Cost(
            2 * used * rank * (len(_WIDTHS) * _NUM_IN + _NUM_OUT)
            + 2 * num_tokens * (_NUM_IN + 2 * _NUM_OUT),
            2 * num_tokens * rank * (len(_WIDTHS) * _NUM_IN + _NUM_OUT),
        ),
        num_programs=(num_tokens // 16 + used) * _NUM_OUT // 128,
        bytes_in_flight=128 * rank * 2,
        expected_fraction=0.4 if is_large else 0.05,
        reason="x is read by each slice, adapters by each 16 rows" if is_large else "launches",
        uses_mma=True,
        needs_wide_loads=True,
        same_code_as=None if is_large else f"4096 of rank {rank}",
    )


WORKLOADS = [_workload(num_tokens, rank) for rank in (16, 64, 128) for num_tokens in (16, 4096)]
