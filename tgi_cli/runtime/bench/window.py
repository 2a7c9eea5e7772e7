"""Watch one phase of a stage from the outside, and decide when it is over.

Spec: bench.md sections 8 and 10.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from tgi_cli.runtime.bench.feeder import Feeder
from tgi_cli.runtime.bench.live import LiveState
from tgi_cli.runtime.bench.messages import EndWindow
from tgi_cli.runtime.bench.pool import WorkerPool
from tgi_cli.runtime.bench.stages import StageSpec

_NS = 1_000_000_000
_LOOK_S = 0.25
_MIN_FAILED_AT_START = 20
_MIN_REQUESTS_FOR_SHARE = 20

StopReason = Literal["requests", "duration", "errors", "ci", "interrupt", "unreachable"]
Show = Callable[[LiveState, StageSpec, str, float | None], None]
"""Called four times a second with the state, the stage, the phase and the seconds left of it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StopRules:
    """When a stage is given up or ended early."""

    max_errors: int | None = None  # failed requests
    max_error_share: float | None = 0.1  # from 20 requests on
    is_precise: Callable[[LiveState], bool] | None = None  # --until-ci


class Interrupts:
    """Ctrl-C: once ends the window and drains, twice stops at once."""

    def __init__(self) -> None:
        self.count = 0
        self.changed = asyncio.Event()

    def __call__(self) -> None:
        self.count += 1
        self.changed.set()


class Window:
    """Follows the workers' counters from the beginning of a phase to the end of its drain."""

    def __init__(
        self,
        pool: WorkerPool,
        feeder: Feeder,
        rules: StopRules,
        interrupts: Interrupts,
        show: Show,
        spec: StageSpec,
        start: int,
        until: int | None,
        is_warmup: bool,
    ) -> None:
        self._pool = pool
        self._feeder = feeder
        self._rules = rules
        self._interrupts = interrupts
        self._show = show
        self._spec = spec
        self._start = start
        self._until = until
        self._is_warmup = is_warmup
        self._state = LiveState(start)
        self.stopped_by: StopReason | None = None  # what ended it before its time

    async def wait_over(self) -> int:
        """Return when the window ended, or was ended."""
        while True:
            await self._look("warm-up" if self._is_warmup else "measure")
            ends = [worker.tick.window_end for worker in self._pool.workers if worker.tick]
            have_run_out = len(ends) == len(self._pool.workers) and None not in ends
            now = self._pool.now()
            if have_run_out and (self._until is None or self.stopped_by):
                return max(max(end for end in ends if end is not None), self._start + 1)
            if self._until is not None and now >= self._until:
                return self._until
            if reason := self._reason_to_stop():
                self.stopped_by = reason
                self._until = max(now, self._start + 1)
                self._pool.send(EndWindow(at=self._until))
                return self._until
            if have_run_out and self._num_open() == 0 and not self._spec.keeps_tail_load:
                return self._until or now

    async def wait_drained(self, deadline: int) -> None:
        """Wait until every measured request has ended, at most until `deadline`."""
        if self._is_warmup and self.stopped_by:
            return
        while self._pool.now() < deadline and self._interrupts.count < 2:
            ends = [worker.tick.window_end for worker in self._pool.workers if worker.tick]
            if None not in ends and len(ends) == len(self._pool.workers) and not self._num_open():
                return
            if self.stopped_by == "unreachable":
                return
            await self._look("drain")

    def _num_open(self) -> int:
        return sum(worker.tick.num_measured_open for worker in self._pool.workers if worker.tick)

    async def _look(self, phase: str) -> None:
        pool = self._pool
        pool.changed.clear()
        wait_s = _LOOK_S
        if self._until is not None and phase != "drain":
            wait_s = min(wait_s, max((self._until - pool.now()) / _NS, 0.0))
        waiting = (pool.changed.wait(), self._interrupts.changed.wait())
        tasks = [asyncio.ensure_future(each) for each in waiting]
        await asyncio.wait(tasks, timeout=wait_s, return_when=asyncio.FIRST_COMPLETED)
        for task in tasks:
            task.cancel()
        self._interrupts.changed.clear()
        pool.check()
        for worker in pool.workers:
            for tick in worker.new_ticks:
                self._state.add(tick)
            worker.new_ticks.clear()
        self._state.look(pool.now(), [w.tick for w in pool.workers if w.tick is not None])
        left_s = None if self._until is None else max(self._until - pool.now(), 0) / _NS
        self._show(self._state, self._spec, phase, left_s)
        await self._feeder.feed_more()

    def _reason_to_stop(self) -> StopReason | None:
        state, rules = self._state, self._rules
        if self._interrupts.count:
            return "interrupt"
        if state.num_ok == 0 and state.num_failed_in_a_row >= _MIN_FAILED_AT_START:
            return "unreachable"
        if self._is_warmup:
            return None
        num_failed = sum(n for name, n in state.failures.items() if name != "cancelled")
        num_done = num_failed + state.num_ok
        if rules.max_errors is not None and num_failed > rules.max_errors:
            return "errors"
        if (
            rules.max_error_share is not None
            and num_done >= _MIN_REQUESTS_FOR_SHARE
            and num_failed > rules.max_error_share * num_done
        ):
            return "errors"
        if rules.is_precise is not None and rules.is_precise(state):
            return "ci"
        return None
