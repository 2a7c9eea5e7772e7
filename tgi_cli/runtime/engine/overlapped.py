"""The engine's loop for a device that computes beside the host: a GPU.

    plan n+1 ─► launch n+1 ─► wait for n ─► stop, answer n ─► plan n+2 ─► …

While step n runs, step n+1 is planned as if none of its sequences stopped, and queued behind it.
Until a sequence's newest token is known here, `PENDING` stands in its place, and the runner reads
the id where the sampler left it, on the device. The host waits once a step.

- *Blocks*: whoever ends while a launched step may still write for it keeps its row and its blocks
  until that step is over. So nobody is preempted for a step that is planned ahead either.
- *Order*: a step is planned only once the one before it is over if the host has to see a token
  first (a grammar; a row that the host samples), if blocks are short, and after a failure. Steps
  that score prompts and steps whose launch failed run when their turn comes, as `Engine` runs them.
- *Bytes*: a row's result doesn't depend on its company, so rows of sequences that have stopped
  meanwhile disturb nobody, and the output is that of `Engine`'s own loop.
"""

from __future__ import annotations

import contextlib
import logging
import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Protocol

from tgi_cli.runtime.config.resolved import EngineConfig
from tgi_cli.runtime.engine.engine import Clock, Engine, Run
from tgi_cli.runtime.engine.plan import StepPlan
from tgi_cli.runtime.engine.runner import StepRunner
from tgi_cli.runtime.engine.sampling.launched import LaunchingSampler, Samples
from tgi_cli.runtime.engine.sequence import PENDING, Sequence
from tgi_cli.runtime.ipc.messages import RequestFailed, StepOutput

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
    plan: StepPlan
    started: list[int]
    start_ns: int
    finishing: list[Sequence] = field(default_factory=list)  # one for each of the samples
    samples: Samples | None = None  # None: it wasn't launched, and runs when its turn comes
    lets_next_begin: bool = False  # before it is over

    @property
    def is_launched(self) -> bool:
        return self.samples is not None


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
        self._ahead = self._begin_ahead() if step.lets_next_begin else None
        run = self._finish(step)
        output = self._answer(step.plan, run, step.started, max(step.start_ns, self._done_ns))
        self._done_ns = self._clock_ns()
        if self._ahead is not None:
            self._advance(self._ahead)
        return output

    def abort(self, request_id: int) -> None:
        """Forget a request; its blocks are free once no launched step may write to them."""
        self._let_go(request_id, partial(super().abort, request_id))

    def fail_running(self) -> StepOutput:
        """Drop every request that was part of a step, after one that raised; the others stay."""
        ahead, self._ahead = self._ahead, None
        if ahead is not None and ahead.samples is not None:
            with contextlib.suppress(Exception):  # they fail all the same
                ahead.samples.fetch()
        for remove in self._leaving.values():
            remove()
        self._leaving.clear()
        return super().fail_running()

    def _fail(
        self, seq: Sequence, message: str, *, distrusts_prefix: bool = False
    ) -> RequestFailed:
        if self._ahead is not None:  # what a failure leaves is seen to before anybody joins
            self._ahead.lets_next_begin = False
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
        step = self._begin(self._plan())
        if step.is_launched:
            self._advance(step)
        return step

    def _begin_ahead(self) -> _Step | None:
        """Begin a step while one runs, if there is anything to do for it."""
        plan = self._plan(may_preempt=False)
        return self._begin(plan) if plan.chunks else None

    def _begin(self, plan: StepPlan) -> _Step:
        step = _Step(plan, self._mark_started(plan), self._clock_ns())
        if plan.chunks and not plan.scores_prompts:
            try:
                self._launch(step)
            except Exception as exc:
                # It is tried again, in parts if need be, when the step before it is over.
                _log.exception("event=launch_failed batch_size=%d", len(plan.chunks))
                step.samples = None
                self._runner.recover(exc)
        return step

    def _launch(self, step: _Step) -> None:
        step.finishing = [chunk.seq for chunk in step.plan.chunks if chunk.is_last]
        ids = [seq.request_id for seq in step.finishing]
        self._guides.start_masks(ids)
        scores = self._runner.run(step.plan)
        step.samples = self._launching_sampler.launch(
            scores, step.finishing, self._guides.bitmasks(ids)
        )
        self._launching_runner.keep(step.samples.token_ids)
        step.lets_next_begin = not step.plan.is_short and not any(
            self._guides.is_guided(seq.request_id) or self._launching_sampler.needs_host(seq)
            for seq in step.finishing
        )

    def _advance(self, step: _Step) -> None:
        """Count what a launched step computes as computed, so that the next can be planned."""
        if not step.is_launched:
            return
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
