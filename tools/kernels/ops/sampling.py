"""The draw of a token of each row that samples, cut by min-p."""

from __future__ import annotations

import torch

from tgi_cli.kernels.sampling import kernel, reference
from tgi_cli.kernels.score_cuts.kernel import no_limits
from tools.kernels.roofline import Cost
from tools.kernels.sampling_rows import rows, scaled
from tools.kernels.workload import Call, Workload

_TEMPERATURE, _UNIFORM = 0.7, 0.37


def _workload(num_rows: int, vocab_size: int) -> Workload:
    def make(device: str) -> Call:
        batch = rows(
            num_rows, vocab_size, device, SAMPLES=1, TEMPERATURE=_TEMPERATURE, UNIFORM=_UNIFORM
        )
        limits = no_limits(batch)

        def run() -> tuple[torch.Tensor, ...]:
            ids, logprobs = batch.best_ids.clone(), batch.best_logprobs.clone()
            highest = batch.best_logprobs.clone()
            kernel.draw_(limits, batch, ids, logprobs, highest)
            return (highest,)

        def expect() -> tuple[torch.Tensor, ...]:
            everyone = torch.ones(vocab_size, dtype=torch.bool, device=batch.logits.device)
            best = [scaled(row, _TEMPERATURE) for row in batch.logits]
            masses = [reference.mass(y, everyone) for y in best]
            return (-torch.stack(masses).log(),)

        return Call(run, expect)

    return Workload(
        op="sampling",
        shape=f"{num_rows} x {vocab_size}",
        make=make,
        cost=Cost(4 * num_rows * vocab_size),
        num_programs=num_rows * -(-vocab_size // 4096),
        bytes_in_flight=4 * 4096,
        expected_fraction=0.6 if num_rows > 16 else 0.05,
        reason="two launches" if num_rows > 16 else "two launches cost more than the bytes",
        tolerance=16.0,  # of a log-probability: exp and log are the chip's own
    )


WORKLOADS = [_workload(1, 128256), _workload(64, 128256), _workload(64, 32000)]
