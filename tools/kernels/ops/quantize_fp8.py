"""Activations in fp8, row by row, before products with fp8 weights on GPUs that multiply such."""

from __future__ import annotations

import torch

from tgi_cli.kernels import quantize_fp8
from tgi_cli.kernels.quantize_fp8 import reference
from tools.kernels.roofline import Cost
from tools.kernels.workload import Call, Workload, randn


def _workload(num_rows: int, num_in: int) -> Workload:
    def make(device: str) -> Call:
        x = randn(num_rows, num_in, dtype=torch.bfloat16, device=device)

        def run() -> tuple[torch.Tensor, ...]:
            codes, scales = quantize_fp8.quantize_fp8(x)
            return codes.view(torch.uint8), scales

        def expect() -> tuple[torch.Tensor, ...]:
            codes, scales = reference.quantize_fp8(x)
            return codes.view(torch.uint8), scales

        return Call(run, expect)

    return Workload(
        op="quantize_fp8",
        shape=f"{num_rows} x {num_in}",
        make=make,
        cost=Cost(num_rows * (num_in * (2 + 1) + 4)),
        num_programs=num_rows,
        loop_turns=-(-num_in // 4096),
        bytes_in_flight=2 * 4096,
        expected_fraction=0.6 if num_rows > 1000 else 0.1,
        reason="rows are read again, from the cache"
        if num_rows > 1000
        else "a launch costs more than the bytes",
        needs_wide_loads=True,
        targets=("sm_90",),
    )


WORKLOADS = [_workload(16, 4096), _workload(4096, 14336)]
