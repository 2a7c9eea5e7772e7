"""Arg-max and log-probability of each row of scores: the whole sampler of a greedy batch."""

from __future__ import annotations

import torch

from tgi_cli.kernels.best_token import kernel, reference
from tools.kernels.roofline import Cost
from tools.kernels.workload import Call, Workload, randn


def _workload(num_rows: int, vocab_size: int) -> Workload:
    def make(device: str) -> Call:
        logits = randn(num_rows, vocab_size, device=device, scale=3.0)

        def expect() -> tuple[torch.Tensor, ...]:
            ids, logprobs = reference.best_token(logits.double())
            return ids, logprobs

        return Call(
            lambda: kernel.best_token(logits),
            expect,
            {"torch": lambda: torch.log_softmax(logits, -1).max(-1)},
        )

    num_programs = num_rows * -(-vocab_size // 4096)
    return Workload(
        op="best_token",
        shape=f"{num_rows} x {vocab_size}",
        make=make,
        cost=Cost(4 * num_rows * vocab_size),
        num_programs=num_programs,
        bytes_in_flight=4 * 4096,
        expected_fraction=0.7 if num_rows > 16 else 0.05,
        reason="two launches cost more than the bytes" if num_rows < 16 else "two launches",
        needs_wide_loads=True,
        tolerance=16.0,  # of a log-probability: exp and log are the chip's own
    )


WORKLOADS = [_workload(1, 128256), _workload(64, 128256), _workload(64, 32000)]
