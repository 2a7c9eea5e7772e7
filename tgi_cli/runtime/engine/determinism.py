"""The promise, looked at: the same request gives the same bits, whatever its company.

`tgi serve --verify-determinism` runs this on the real model before the port opens, and the tests
run it longer. Requests of different lengths are computed alone; then together, in another order,
in chunks, joining half-way, on blocks that an earlier request has left, and on a CPU with another
number of threads; every logit must be the same bits.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from tgi_cli.errors import DeterminismError
from tgi_cli.runtime.config.resolved import EngineConfig
from tgi_cli.runtime.engine.plan import StepPlan
from tgi_cli.runtime.engine.runner import StepRunner
from tgi_cli.runtime.engine.sequence import Sequence
from tgi_cli.runtime.ipc.messages import NewRequest
from tgi_cli.runtime.platforms import cpu
from tgi_cli.runtime.types import SamplingParams

if TYPE_CHECKING:
    from torch import Tensor

Logits = dict[int, list["Tensor"]]  # of each request: after its prompt, and after each output token

_OUTPUT_IDS = [11, 222, 3333, 44444]
_CHUNKS = (1, 7, 16)
_LONG_PROMPT = 300  # tokens: more keys than the 256 that a program of a GPU's attention sums


class Stepper:
    """Runs sequences through chosen chunks on an idle runner; each has a row and blocks."""

    def __init__(self, runner: StepRunner, config: EngineConfig) -> None:
        self._runner = runner
        self._block_size = config.block_size
        self._free_blocks = list(range(config.num_blocks))
        self._num_rows = 0

    def add(self, prompt_ids: list[int]) -> Sequence:
        seq = Sequence(NewRequest(self._num_rows, prompt_ids, 1 << 20, SamplingParams()))
        seq.row = self._num_rows
        self._num_rows += 1
        return seq

    def take_over(self, seq: Sequence, prompt_ids: list[int]) -> Sequence:
        """End `seq`; begin one that shares its start, on those of its blocks that are whole."""
        successor = Sequence(NewRequest(seq.request_id, prompt_ids, 1 << 20, SamplingParams()))
        successor.row = seq.row
        num_shared = (len(prompt_ids) - 1) // self._block_size
        successor.block_table = seq.block_table[:num_shared]
        successor.num_computed_tokens = num_shared * self._block_size
        self._free_blocks += seq.block_table[num_shared:]
        return successor

    def step(self, chunks: Iterable[tuple[Sequence, int]]) -> dict[int, Tensor]:
        """Compute so many tokens of each; return the logits of those that are complete."""
        plan = StepPlan(budget=1 << 30)
        chunks = list(chunks)
        for seq, num_tokens in chunks:
            needed = -(-(seq.num_computed_tokens + num_tokens) // self._block_size)
            new_blocks = [self._free_blocks.pop() for _ in range(needed - len(seq.block_table))]
            seq.block_table += new_blocks
            plan.add(seq, num_tokens, new_blocks)
        complete = [chunk.seq.request_id for chunk in plan.chunks if chunk.is_last]
        logits = self._runner.run(plan).logits.clone()  # the next step overwrites it
        for seq, num_tokens in chunks:
            seq.num_computed_tokens += num_tokens
        return dict(zip(complete, logits, strict=True))


def _are_same_bits(a: Tensor, b: Tensor) -> bool:
    return bool(a.cpu().numpy().tobytes() == b.cpu().numpy().tobytes())


Start = Callable[[Stepper, int], Sequence]  # makes the sequence of a request, by its index


class Determinism:
    """Forms of running the same requests, all of which must give what `alone` gives."""

    def __init__(self, runner: StepRunner, config: EngineConfig, num_requests: int = 8) -> None:
        self._runner = runner
        self._config = config
        vocab_size = config.model.vocab_size
        num_outputs = min(len(_OUTPUT_IDS), config.max_total_tokens - 1)
        self._output_ids = [token_id % vocab_size for token_id in _OUTPUT_IDS[:num_outputs]]
        longest = config.max_total_tokens - num_outputs
        blocks_each = -(-min(config.max_total_tokens, 9 * num_requests + 4) // config.block_size)
        count = min(num_requests, config.max_running, config.num_blocks // blocks_each)
        lengths = [min(longest, 1 + 9 * i) for i in range(max(1, count))]
        if config.device == "cuda":
            num_free_blocks = config.num_blocks - blocks_each * (len(lengths) - 1)
            room = num_free_blocks * config.block_size - num_outputs
            lengths[-1] = max(lengths[-1], min(longest, room, _LONG_PROMPT))
        self.prompts = [
            [(7919 * i + 131 * j) % vocab_size for j in range(length)]
            for i, length in enumerate(lengths)
        ]

    def verify(self) -> None:
        """Raise `DeterminismError` for the first form that gives other bits."""
        expected = self.alone()
        forms: dict[str, Callable[[], Logits]] = {
            "together with others": self.together,
            "together in another order": lambda: self.together(reverse=True),
            "joining half-way": self.joining,
            "on cached blocks": self.cached,
            **{f"in chunks of {size}": self._chunked(size) for size in _CHUNKS},
        }
        if self._config.device == "cpu":
            forms["with one thread"] = self._with_one_thread
        for name, run in forms.items():
            for index, logits in run().items():
                if not all(map(_are_same_bits, logits, expected[index])):
                    raise DeterminismError(
                        f"A request of {len(self.prompts[index])} tokens gives other bits {name} "
                        "than alone.",
                        hint=self._hint,
                    )

    @property
    def _hint(self) -> str:
        if self._config.device == "cpu":
            return (
                "The start log's line `kernels:` says what computes; torch promises no bits. "
                "Install with a C compiler, or leave --verify-determinism out."
            )
        if self._config.attention != "paged":
            return "Leave --attention out: only our own kernels promise bits."
        return "Please report it, with the GPU's name. --device cpu computes without it."

    def alone(self) -> Logits:
        return self._one_by_one()

    def together(self, *, reverse: bool = False) -> Logits:
        order = list(range(len(self.prompts)))
        return self._run([order[::-1] if reverse else order], chunk=1 << 30)

    def joining(self) -> Logits:
        """The second half joins while the first decodes."""
        half = len(self.prompts) // 2
        first, second = list(range(half)), list(range(half, len(self.prompts)))
        return self._run([first, second], chunk=1 << 30)

    def cached(self) -> Logits:
        """Each begins with what one that began as it does has computed, output included."""

        def start(stepper: Stepper, index: int) -> Sequence:
            prompt = self.prompts[index]
            earlier = stepper.add(prompt + self._output_ids)
            stepper.step([(earlier, earlier.num_tokens)])
            return stepper.take_over(earlier, prompt)

        return self._one_by_one(start)

    def _one_by_one(self, start: Start | None = None) -> Logits:
        return {
            index: self._run([[index]], chunk=1 << 30, start=start)[index]
            for index in range(len(self.prompts))
        }

    def _chunked(self, size: int) -> Callable[[], Logits]:
        return lambda: self._run([list(range(len(self.prompts)))], chunk=size)

    def _with_one_thread(self) -> Logits:
        cpu.set_num_threads(1)
        try:
            return self.together()
        finally:
            cpu.set_num_threads(self._config.num_threads)

    def _run(self, waves: list[list[int]], chunk: int, start: Start | None = None) -> Logits:
        """Run requests, by their indices, a wave joining every second step, to their ends."""
        start = start or (lambda stepper, index: stepper.add(self.prompts[index]))
        stepper = Stepper(self._runner, self._config)
        logits: Logits = {}
        indices: dict[int, int] = {}  # of requests, by the stepper's ids
        running: list[Sequence] = []
        waves = list(waves)
        num_steps = 0
        while waves or running:
            if waves and num_steps % 2 == 0:
                for index in waves.pop(0):
                    seq = start(stepper, index)
                    indices[seq.request_id] = index
                    logits[index] = []
                    running.append(seq)
            chunks = [(seq, min(chunk, seq.num_uncomputed_tokens)) for seq in running]
            for request_id, row in stepper.step(chunks).items():
                logits[indices[request_id]].append(row)
            running = [seq for seq in running if self._go_on(seq, logits[indices[seq.request_id]])]
            num_steps += 1
        return logits

    def _go_on(self, seq: Sequence, rows: list[Tensor]) -> bool:
        """Append the next forced token once the newest is computed; return whether there is one."""
        if seq.num_uncomputed_tokens:
            return True
        if len(rows) > len(self._output_ids):
            return False
        seq.token_ids.append(self._output_ids[len(rows) - 1])
        return True
