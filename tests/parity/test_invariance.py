"""The promise, to the bit: a sequence's logits don't depend on its neighbours or on the chunks.

The native kernels hold it by construction.
"""

from __future__ import annotations

import pytest
import torch

from tests.builders.model import engine_config, make_runner
from tgi_cli.kernels import native
from tgi_cli.runtime.engine.plan import StepPlan
from tgi_cli.runtime.engine.runner import Runner
from tgi_cli.runtime.engine.sequence import Sequence
from tgi_cli.runtime.hub.locate import locate_model
from tgi_cli.runtime.ipc.messages import NewRequest
from tgi_cli.runtime.types import SamplingParams


@pytest.fixture(scope="module")
def runner() -> Runner:
    if not native.is_available():
        pytest.skip("without the native library torch multiplies, which promises nothing")
    return make_runner(engine_config(locate_model("demo"), max_total_tokens=256, num_blocks=400))


class Stepper:
    """Runs sequences through chosen chunks; each gets a row and blocks of its own."""

    def __init__(self, runner: Runner) -> None:
        self._runner = runner
        self._free_blocks = list(range(399, 0, -1))
        self._num_rows = 0

    def add(self, prompt_ids: list[int]) -> Sequence:
        seq = Sequence(NewRequest(self._num_rows, prompt_ids, 99, SamplingParams()))
        seq.row = self._num_rows
        self._num_rows += 1
        return seq

    def step(self, *chunks: tuple[Sequence, int]) -> dict[int, torch.Tensor]:
        """Compute so many tokens of each; return the logits of those that are complete."""
        plan = StepPlan(budget=10_000)
        for seq, num_tokens in chunks:
            needed = -(-(seq.num_computed_tokens + num_tokens) // 32) - len(seq.block_table)
            new_blocks = [self._free_blocks.pop() for _ in range(needed)]
            seq.block_table += new_blocks
            plan.add(seq, num_tokens, new_blocks)
        complete = [chunk.seq.request_id for chunk in plan.chunks if chunk.is_last]
        logits = self._runner.run(plan).clone()
        for seq, num_tokens in chunks:
            seq.num_computed_tokens += num_tokens
        return dict(zip(complete, logits, strict=True))


def run_alone(runner: Runner, prompt_ids: list[int], output_ids: list[int]) -> list[torch.Tensor]:
    """Return the logits after the prompt and after each forced output token."""
    stepper = Stepper(runner)
    seq = stepper.add(prompt_ids)
    rows = [stepper.step((seq, len(prompt_ids)))[seq.request_id]]
    for token_id in output_ids:
        seq.token_ids.append(token_id)
        rows.append(stepper.step((seq, 1))[seq.request_id])
    return rows


def prompt_of(index: int) -> list[int]:
    return [(7919 * index + 131 * i) % 49152 for i in range(5 + 9 * index)]


OUTPUT = [11, 222, 3333, 44444]


def test_logits_are_the_same_bits_alone_and_among_others(runner):
    count = 12
    alone = [run_alone(runner, prompt_of(i), OUTPUT) for i in range(count)]
    stepper = Stepper(runner)
    sequences = [stepper.add(prompt_of(i)) for i in range(count)]

    rows = [stepper.step(*((seq, seq.num_tokens) for seq in sequences))]
    for token_id in OUTPUT:
        for seq in sequences:
            seq.token_ids.append(token_id)
        rows.append(stepper.step(*((seq, 1) for seq in reversed(sequences))))

    for index in range(count):
        for step, expected in enumerate(alone[index]):
            assert torch.equal(rows[step][index], expected), (index, step)


@pytest.mark.parametrize("size", [1, 7, 16, 100])
def test_logits_are_the_same_bits_in_any_chunks_and_beside_a_decode(runner, size):
    prompt = prompt_of(13)
    [expected] = run_alone(runner, prompt, [])
    stepper = Stepper(runner)
    seq, neighbour = stepper.add(prompt), stepper.add(prompt_of(2))
    stepper.step((neighbour, neighbour.num_tokens))

    while seq.num_uncomputed_tokens:
        neighbour.token_ids.append(5)
        logits = stepper.step((neighbour, 1), (seq, min(size, seq.num_uncomputed_tokens)))

    assert torch.equal(logits[seq.request_id], expected)
