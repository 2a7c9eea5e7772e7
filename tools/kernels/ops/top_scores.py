"""The five best scores of each row, with ties."""

from __future__ import annotations

import torch

from tgi_cli.kernels.score_cuts.kernel import no_limits
from tgi_cli.kernels.top_scores import kernel
from tools.kernels.roofline import Cost
from tools.kernels.sampling_rows import rows
from tools.kernels.workload import Call, Workload

_TOP_N = 5


def _workload(num_rows: int, vocab_size: int) -> Workload:
    def make(device: str) -> Call:
        batch = rows(num_rows, vocab_size, device, TOP_N=_TOP_N)

        def run() -> tuple[torch.Tensor, ...]:
            ids, scores = kernel.best_scores(no_limits(batch), batch, _TOP_N)
            scores = torch.where(ids < 0, float("-inf"), scores)
            return (scores.topk(_TOP_N).values,)

        return Call(
            run,
            lambda: (batch.logits.topk(_TOP_N).values,),
            {"torch": lambda: batch.logits.topk(_TOP_N)},
        )

    return Workload(
        op="top_scores",
        shape=f"{num_rows} x {vocab_size} top {_TOP_N}",
        make=make,
        cost=Cost(10 * 4 * num_rows * vocab_size),  # from the second-level cache, if they fit it
        num_programs=num_rows * -(-vocab_size // 4096),
        bytes_in_flight=4 * 4096,
        expected_fraction=0.25 if num_rows > 16 else 0.02,
        loop_turns=8,
        reason="issue: 120 instructions a score" if num_rows > 16 else "eleven launches",
    )


WORKLOADS = [_workload(1, 128256), _workload(64, 128256)]
