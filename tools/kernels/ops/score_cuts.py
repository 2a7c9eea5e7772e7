"""Top-k and top-p of a batch that samples: eight passes and a kernel that ends them, for each."""

from __future__ import annotations

import math

import torch

from tgi_cli.kernels.sampling.settings import Field
from tgi_cli.kernels.score_cuts import kernel, reference
from tools.kernels.roofline import Cost
from tools.kernels.sampling_rows import rows, scaled
from tools.kernels.workload import Call, Workload

_TEMPERATURE, _TOP_K, _TOP_P = 0.7, 50, 0.9


def _workload(num_rows: int, vocab_size: int, field: Field) -> Workload:
    top_k, top_p = (_TOP_K, 1.0) if field == Field.TOP_K else (0, _TOP_P)

    def make(device: str) -> Call:
        batch = rows(
            num_rows,
            vocab_size,
            device,
            SAMPLES=1,
            TEMPERATURE=_TEMPERATURE,
            TOP_K=top_k,
            TOP_P=top_p,
        )

        def run() -> tuple[torch.Tensor, ...]:
            limits = kernel.no_limits(batch)
            kernel.cut_(limits, batch, field)
            return (kernel.scores_at(limits),)

        def expect() -> tuple[torch.Tensor, ...]:
            lowest = []
            for row in batch.logits:
                y = scaled(row, _TEMPERATURE)
                lowest.append(y[reference.kept(y, top_k, top_p, -math.inf)].min())
            return (torch.stack(lowest),)

        return Call(run, expect)

    return Workload(
        op="score_cuts",
        shape=f"{num_rows} x {vocab_size} {field.name.lower()}",
        make=make,
        cost=Cost(8 * 4 * num_rows * vocab_size),  # from the second-level cache, if they fit it
        num_programs=num_rows * -(-vocab_size // 4096),
        bytes_in_flight=4 * 4096,
        expected_fraction=0.25 if num_rows > 16 else 0.02,
        reason="issue: 120 instructions a score" if num_rows > 16 else "nine launches",
        loop_turns=8,
        tolerance=4096.0,  # of the score at the cut: exp is the chip's own, and another may be next
    )


WORKLOADS = [
    _workload(1, 128256, Field.TOP_P),
    _workload(64, 128256, Field.TOP_K),
    _workload(64, 128256, Field.TOP_P),
    _workload(64, 32000, Field.TOP_P),
]
