"""Penalties, bitmasks, biases and forbidden ends, all in every row."""

from __future__ import annotations

import torch

from tgi_cli.kernels.penalties import kernel, reference
from tgi_cli.kernels.sampling.settings import Field
from tools.kernels.roofline import Cost
from tools.kernels.sampling_rows import rows
from tools.kernels.workload import Call, Workload, randn

_NUM_BIASES = 300


def _workload(num_rows: int, vocab_size: int) -> Workload:
    def make(device: str) -> Call:
        penalties = {"REPETITION": 1.3, "FREQUENCY": 0.2, "PRESENCE": 0.4}
        batch = rows(num_rows, vocab_size, device, FORBIDS=1, **penalties)
        numbers = torch.arange(num_rows, device=device, dtype=torch.float64)
        batch.settings[:, Field.COUNT_ROW] = numbers
        batch.settings[:, Field.MASK_ROW] = numbers
        batch.settings[:, Field.BIAS_END] = _NUM_BIASES
        counts = (randn(num_rows, vocab_size, device=device).abs() * 2).to(torch.int16)
        masks = (randn(num_rows, vocab_size // 32, device=device) * 1e9).to(torch.int32)
        bias_ids = torch.arange(_NUM_BIASES, dtype=torch.int32, device=device) * 7
        biases = randn(_NUM_BIASES, device=device)
        end_ids = torch.arange(2, dtype=torch.int32, device=device)

        def run() -> tuple[torch.Tensor, ...]:
            logits = batch.logits.clone()
            kernel.change_(logits, batch.settings, counts, masks)
            kernel.add_bias_(logits, batch.settings, bias_ids, biases)
            kernel.forbid_(logits, batch.settings, end_ids)
            return (logits.clamp(min=-1e4),)

        def expect() -> tuple[torch.Tensor, ...]:
            changed = [
                reference.changed(row.double(), settings, counts[i], masks[i], bias_ids, biases)
                for i, (row, settings) in enumerate(zip(batch.logits, batch.settings, strict=True))
            ]
            return (torch.stack([reference.without(row, end_ids) for row in changed]).clamp(-1e4),)

        return Call(run, expect)

    return Workload(
        op="penalties",
        shape=f"{num_rows} x {vocab_size}",
        make=make,
        # Scores read and written, counts, bits; and the scores again for what may be forbidden.
        cost=Cost(num_rows * vocab_size * (4 + 4 + 2 + 4) + num_rows * vocab_size // 8),
        num_programs=num_rows * -(-vocab_size // 4096),
        bytes_in_flight=6 * 4096,
        expected_fraction=0.6 if num_rows > 16 else 0.05,
        reason="four launches" if num_rows > 16 else "four launches cost more than the bytes",
    )


WORKLOADS = [_workload(1, 128256), _workload(64, 128256)]
