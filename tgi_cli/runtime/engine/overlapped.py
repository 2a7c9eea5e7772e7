"""The engine's loop for a device that computes beside the host: a GPU.

    plan n+1 ─► launch n+1 ─► wait for n ─► stop, answer n ─► plan n+2 ─► …

While step n runs, step n+1 is planned as if none of its sequences stopped, and queued behind it.
Until a sequence's newest token is known here, `PENDING` stands in its place, and the runner reads
the id where the sampler left it, on the device. The host waits once a step.

- *Blocks*: whoever ends while a launched step may still write for it keeps its row and its blocks
  until that step is over. So nobody is preempted for a step that is planned ahead either.
- *Order*: a step is planned only once the one before it is over if the host samples a row of that
  one, if blocks are short, and after a failure. If a grammar has to see a token first, the model
  goes ahead and the sampler follows. Steps that score prompts and steps whose launch failed run
  when their turn comes, as `Engine` runs them.
- *Bytes*: a row's result doesn't depend on its company, so rows of sequences that have stopped
  meanwhile disturb nobody, and the output is that of `Engine`'s own loop.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Protocol

from tgi_cli.runtime.config.resolved import EngineConfig
from tgi_cli.runtime.engine.engine import Clock, Engine, Run
from tgi_cli.runtime.engine.plan import StepPlan
from tgi_cli.runtime.engine.runner import StepRunner
from tgi_cli.runtime.engine.sampling.launched import LaunchingSampler, Samples
from tgi_cli.runtime.engine.sequence import PENDING, Sequence
from tgi_cli.runtime.ipc.messages import NewRequest, RequestFailed, StepOutput
from tgi_cli.runtime.layers.head import Scores
from tgi_cli.runtime.types import SamplingParams

if TYPE_CHECKING:
    from torch import Tensor

_log = logging.getLogger(__name__)


class LaunchingRunner(StepRunner, Protocol):
    """A runner whose `run` waits for nothing unless it scores prompts."""

    def keep(self, token_ids: Tensor) -> None:
        """Remember the tokens [N] of the rows of the last run, for what is `PENDING` in the next.

        Nothing waits.
        """
        ...


@dataclass(slots=True)
class _Step:
    """What has begun of a step. Without scores or samples it wasn't launched: it has its turn."""

    plan: StepPlan
    started: list[int]
    start_ns: int
    finishing: list[Sequence] = field(default_factory=list)  # who gets a token
    scores: Scores | None = None  # until they are sampled
    samples: Samples | None = None
    lets_next_begin: bool = False  # before it is over


class OverlappedEngine(Engine):
    def __init__(
        self,
        config: EngineConfig,
        runner: LaunchingRunner,
        sampler: LaunchingSampler,
        clock_ns: Clock = time.monotonic_ns,
        *,
        reserved_new_tokens: int = 1024,
    ) -> None:
        super().__init__(
            config, runner, clock_ns, sampler=sampler, reserved_new_tokens=reserved_new_tokens
        )
        self._launching_runner = runner
        self._launching_sampler = sampler
        self._ahead: _Step | None = None  # begun while the one before it was running
        self._leaving: dict[int, Callable[[], object]] = {}  # what lets go of those that ended
        self._done_ns = 0  # when the last step was over

    @property
    def has_work(self) -> bool:
        return self._ahead is not None or super().has_work

    def step(self) -> StepOutput:
        """Begin the step after the next one, if that may be, and return what the next produced."""
        self._admit_guided()
        step = self._ahead or self._begin_now()
        self._ahead = self._begin_ahead(step) if step.lets_next_begin else None
        run = self._finish(step)
        output = self._answer(step.plan, run, step.started, max(step.start_ns, self._done_ns))
        self._done_ns = self._clock_ns()
        if self._ahead is not None:
            self._complete(self._ahead)
            if output.failures:  # what they leave is seen to before anybody joins
                self._ahead.lets_next_begin = False
        return output

    def abort(self, request_id: int) -> None:
        """Forget a request; its blocks are free once no launched step may write to them."""
        self._let_go(request_id, partial(super().abort, request_id))

    def fail_running(self) -> StepOutput:
        """Drop every request that was part of a step, after one that raised; the others stay."""
        ahead, self._ahead = self._ahead, None
        if ahead is not None and ahead.samples is not None:
            with suppress(Exception):  # they fail all the same
                ahead.samples.fetch()
        for remove in self._leaving.values():
            remove()
        self._leaving.clear()
        return super().fail_running()

    def _warm_up_requests(self) -> list[NewRequest]:
        """Ask for a short prompt with its scores, too: kernels are compiled when first launched."""
        num_tokens = max(1, min(19, self._config.max_total_tokens - 3))
        scored = NewRequest(-1, [0] * num_tokens, 3, SamplingParams(), scores_prompt=True)
        return [*super()._warm_up_requests(), scored]

    def _fail(
        self, seq: Sequence, message: str, *, distrusts_prefix: bool = False
    ) -> RequestFailed:
        fail = partial(super()._fail, seq, message, distrusts_prefix=distrusts_prefix)
        self._let_go(seq.request_id, fail)
        return RequestFailed(seq.request_id, message)

    def _let_go(self, request_id: int, remove: Callable[[], object]) -> None:
        """End a sequence: now, or when the step that has begun with it is over."""
        begun = self._ahead.plan.sequences if self._ahead is not None else []
        for seq in begun:
            if seq.request_id == request_id:
                seq.has_ended = True
                self._leaving.setdefault(request_id, remove)
                return
        remove()

    def _begin_now(self) -> _Step:
        """Begin a step while none runs: every token is known."""
        step = self._begin(self._plan(), knows_tokens=True)
        self._complete(step)
        return step

    def _begin_ahead(self, running: _Step) -> _Step | None:
        """Begin a step while one runs, if there is anything to do for it."""
        plan = self._plan(may_preempt=False)
        if not plan.chunks:
            return None
        is_guiding = any(self._guides.is_guided(seq.request_id) for seq in running.finishing)
        return self._begin(plan, knows_tokens=not is_guiding)

    def _begin(self, plan: StepPlan, *, knows_tokens: bool) -> _Step:
        """Launch a step, unless it scores prompts; without the sampler if masks need a token."""
        step = _Step(plan, self._mark_started(plan), self._clock_ns())
        if plan.chunks and not plan.scores_prompts:
            step.finishing = [chunk.seq for chunk in plan.chunks if chunk.is_last]
            with self._trying(step):
                if knows_tokens:
                    self._start_masks(step)
                step.scores = self._runner.run(plan)
                if knows_tokens:
                    self._sample(step, step.scores)
        return step

    def _complete(self, step: _Step) -> None:
        """Launch what is left of a step, now that the one before it is over, and count it."""
        if step.scores is not None and step.samples is None:
            with self._trying(step):
                self._start_masks(step)
                self._sample(step, step.scores)
        if step.samples is not None:
            self._advance(step)

    @contextmanager
    def _trying(self, step: _Step) -> Iterator[None]:
        """If a launch fails, have the step tried again, in parts if need be, at its turn."""
        try:
            yield
        except Exception as exc:
            _log.exception("event=launch_failed batch_size=%d", len(step.plan.chunks))
            step.scores = step.samples = None
            step.lets_next_begin = False
            self._runner.recover(exc)

    def _start_masks(self, step: _Step) -> None:
        self._guides.start_masks([seq.request_id for seq in step.finishing if not seq.has_ended])

    def _sample(self, step: _Step, scores: Scores) -> None:
        masks = self._guides.bitmasks([seq.request_id for seq in step.finishing])
        step.samples = self._launching_sampler.launch(scores, step.finishing, masks)
        step.scores = None  # those of two steps at once would be more than was measured
        self._launching_runner.keep(step.samples.token_ids)
        step.lets_next_begin = not step.plan.is_short and not any(
            map(self._launching_sampler.needs_host, step.finishing)
        )

    def _advance(self, step: _Step) -> None:
        """Count what a launched step computes as computed, so that the next can be planned."""
        for chunk in step.plan.chunks:
            chunk.seq.num_computed_tokens = chunk.end
        for seq in step.finishing:
            if not seq.has_ended:
                seq.token_ids.append(PENDING)

    def _finish(self, step: _Step) -> Run:
        """Wait for a step, or run it now; then let go of those that ended since it began."""
        run = Run()
        sequences = step.plan.sequences
        if step.samples is not None:
            self._collect(step, step.samples, run)
        else:
            step.plan.chunks = [chunk for chunk in step.plan.chunks if not chunk.seq.has_ended]
            if step.plan.chunks:
                self._compute(step.plan.chunks, run)
        for seq in sequences:
            if remove := self._leaving.pop(seq.request_id, None):
                remove()
        return run

    def _collect(self, step: _Step, samples: Samples, run: Run) -> None:
        for seq in step.finishing:  # as they were when it was launched
            if seq.token_ids[-1] == PENDING:
                seq.token_ids.pop()
        try:
            tokens = samples.fetch()
        except Exception as exc:
            self._runner.recover(exc)
            raise
        for seq, token in zip(step.finishing, tokens, strict=True):
            if not seq.has_ended:
                run.sampled.append((seq, token))
            elif math.isfinite(token.logprob):  # what it has written may be kept
                seq.num_sound_tokens = seq.num_computed_tokens
        run.forward_ns = self._clock_ns() - max(step.start_ns, self._done_ns)
