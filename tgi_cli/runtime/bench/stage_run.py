"""Run one stage on the workers: warm-up, measured window, drain; and decide when it is over.

The bench's process is never in the way of a request: it sends the plan before, looks at counters
four times a second, and tells the workers when to stop. Spec: bench.md sections 6, 8 and 14.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal, Protocol

from msgspec import structs

from tgi_cli.runtime.bench.counting import CountTokens, count_tokens
from tgi_cli.runtime.bench.live import LiveState
from tgi_cli.runtime.bench.messages import (
    Begin,
    EndWindow,
    Finish,
    Load,
    OpenConnections,
)
from tgi_cli.runtime.bench.pool import WorkerPool
from tgi_cli.runtime.bench.records import RequestRecord, StageRecord
from tgi_cli.runtime.bench.stages import PlannedRequest, StageSpec

_NS = 1_000_000_000
_LEAD_NS = 100_000_000  # between the word to begin and the beginning
_LOOK_S = 0.25
_LOW_S = 2.0  # of load that must be left in a worker's plan, else more is sent
_MIN_FAILED_AT_START = 20
_MIN_REQUESTS_FOR_SHARE = 20
_SLICE_REQUESTS = 500  # of a plan, in one message
_COUNTED_TEXTS_REMOTE = 200

StopReason = Literal["requests", "duration", "errors", "ci", "interrupt", "unreachable"]


class Plan(Protocol):
    """A phase's requests. An open loop's are all there; users are given more as they need them."""

    requests: list[PlannedRequest]
    is_whole: bool

    def more(self, count: int) -> list[PlannedRequest]:
        """Return the `count` requests that follow."""
        ...


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


@dataclass
class StageRunner:
    """Runs stages, one after the other, on one pool of workers."""

    pool: WorkerPool
    rules: StopRules
    interrupts: Interrupts
    show: Callable[[LiveState, StageSpec, str, float | None], None]
    count_text: CountTokens | None = None
    counts_all_texts: bool = True  # else a sample: each text costs a request
    saves_text: bool = False
    mean_e2e_s: float = 0.0  # of the latest phase: users' starts are spread over it
    stopped_by: StopReason | None = field(default=None, init=False)

    async def warm_up(self, spec: StageSpec, plan: Plan) -> float:
        """Put the stage's load on without measuring; return how long it took, in seconds.

        Raises:
            WorkerDied: a worker ended.
        """
        if spec.warmup_s <= 0 and not spec.warmup_requests:
            await self._open_connections(spec)
            return 0.0
        start = self.pool.now()
        duration_s = None if spec.warmup_requests else spec.warmup_s
        await self._run_phase(spec, plan, True, duration_s, spec.warmup_requests)
        self._take_e2e()
        self.pool.finished.clear()
        return (self.pool.now() - start) / _NS

    async def measure(self, spec: StageSpec, plan: Plan, repeat: int) -> StageRecord:
        """Run the window and its drain; return all that it left behind. Raises `WorkerDied`."""
        w0, w1, drained = await self._run_phase(
            spec, plan, False, spec.duration_s, spec.num_requests
        )
        self._take_e2e()
        finished, requests = self.pool.finished, []
        num_counted = 0
        for each in finished:
            record, deliveries = each.record, each.deliveries
            record.deliveries = deliveries.at
            record.tokens, record.token_source = count_tokens(deliveries, self.count_text)
            record.output_tokens = sum(record.tokens)
            may_count = self.counts_all_texts or num_counted < _COUNTED_TEXTS_REMOTE
            if self.count_text is not None and deliveries.text and record.is_ok and may_count:
                num_counted += 1
                record.own_output_tokens = self.count_text(deliveries.text)
            if self.saves_text:
                record.text = deliveries.text
            requests.append(record)
        finished.clear()
        requests.sort(key=lambda record: (record.sched, record.index))
        dones = [worker.done for worker in self.pool.workers if worker.done is not None]
        measured = [record for record in requests if record.phase == "measure"]
        return StageRecord(
            key=spec.key,
            repeat=repeat,
            requests=requests,
            samples=[
                structs.replace(sample, worker=index)
                for index, done in enumerate(dones)
                for sample in done.samples
            ],
            w0=w0,
            w1=w1,
            drained=drained,
            num_workers=len(self.pool.workers),
            is_closed_loop=spec.is_closed_loop,
            has_cap=spec.max_concurrency is not None,
            num_planned=len(measured),
            offered_req_s=None if spec.is_closed_loop else offered(measured, w0, w1),
            stopped_by=self.stopped_by or ("requests" if spec.duration_s is None else "duration"),
            clock_jumped=any(done.clock_jumped for done in dones),
        )

    def _take_e2e(self) -> None:
        spans = [
            each.record.end - each.record.sched
            for each in self.pool.finished
            if each.record.is_ok and each.record.end is not None
        ]
        if spans:
            self.mean_e2e_s = sum(spans) / len(spans) / _NS

    async def _open_connections(self, spec: StageSpec) -> None:
        num = max(int(spec.value if spec.is_closed_loop else spec.value * self.mean_e2e_s), 1)
        each = -(-min(num, 1000) // len(self.pool.workers))
        for worker in self.pool.workers:
            worker.is_open = False
        self.pool.send(OpenConnections(count=each))
        await self.pool.wait_for(lambda worker: worker.is_open, timeout_s=10)

    async def _run_phase(
        self,
        spec: StageSpec,
        plan: Plan,
        is_warmup: bool,
        duration_s: float | None,
        num_requests: int | None,
    ) -> tuple[int, int, int]:
        """Return when the window began and ended, and when the drain was over."""
        pool = self.pool
        feeder = _Feeder(pool, plan, spec)
        await feeder.feed_first()
        for worker in pool.workers:
            worker.tick, worker.done = None, None
            worker.new_ticks.clear()
        start = pool.now() + _LEAD_NS
        until = None if duration_s is None else start + int(duration_s * _NS)
        pool.send(*self._beginnings(spec, is_warmup, start, until, num_requests))
        window = _Window(self, spec, feeder, start, until, is_warmup)
        w1 = await window.wait_over()
        drain_end = max(w1, pool.now()) + int(spec.drain_s * _NS)
        await window.wait_drained(drain_end)
        drained = pool.now()
        pool.send(Finish())
        await pool.wait_for(lambda worker: worker.done is not None)
        return start, w1, drained

    def _beginnings(
        self,
        spec: StageSpec,
        is_warmup: bool,
        start: int,
        until: int | None,
        num_requests: int | None,
    ) -> list[Begin]:
        num = len(self.pool.workers)
        stagger_s = spec.stagger_s if spec.stagger_s is not None else self.mean_e2e_s
        num_users = int(max(spec.value, spec.ramp_to or 0)) if has_users(spec) else 0
        return [
            Begin(
                spec=spec,
                is_warmup=is_warmup,
                start=start,
                until=until,
                num_requests=None if num_requests is None else part(num_requests, index, num),
                users=list(range(index, num_users, num)),
                stagger_s=stagger_s,
                max_concurrency=None
                if spec.max_concurrency is None
                else part(spec.max_concurrency, index, num),
            )
            for index in range(num)
        ]


def has_users(spec: StageSpec) -> bool:
    """Whether requests wait for the answers of the same user."""
    return spec.kind in ("concurrency", "conversations") or spec.ramp_kind == "concurrency"


def part(whole: int, index: int, num: int) -> int:
    """Return what worker `index` of `num` gets of a number."""
    return whole // num + (index < whole % num)


def offered(measured: list[RequestRecord], w0: int, w1: int) -> float | None:
    """Return the planned rate of an open loop's window, per second."""
    return None if w1 <= w0 else len(measured) / ((w1 - w0) / _NS)


class _Feeder:
    """Deals the plan to the workers: entry i to worker i mod m, conversations as a whole."""

    def __init__(self, pool: WorkerPool, plan: Plan, spec: StageSpec) -> None:
        self._pool = pool
        self._plan = plan
        self._by_conversation = spec.kind == "conversations"
        self._num_sent = 0
        self._per_tick = 0

    async def feed_first(self) -> None:
        await self._deal(self._plan.requests)

    async def feed_more(self) -> None:
        """Send more to users whose plan runs low, before it does."""
        if self._plan.is_whole:
            return
        ticks = [worker.tick for worker in self._pool.workers if worker.tick is not None]
        if not ticks:
            return
        num_sent = sum(tick.num_sent for tick in ticks)
        self._per_tick = max(self._per_tick, num_sent - self._num_sent)
        self._num_sent = num_sent
        low = self._per_tick * _LOW_S / _LOOK_S / len(ticks)
        if min(tick.num_left for tick in ticks) < max(low, 4):
            await self._deal(self._plan.more(int(max(2 * low * len(ticks), 8 * len(ticks)))))

    async def _deal(self, requests: list[PlannedRequest]) -> None:
        num = len(self._pool.workers)
        for first in range(0, max(len(requests), 1), _SLICE_REQUESTS * num):
            parts: list[list[PlannedRequest]] = [[] for _ in range(num)]
            for request in requests[first : first + _SLICE_REQUESTS * num]:
                owner = request.conversation if self._by_conversation else request.index
                parts[(owner or 0) % num].append(request)
            is_last = self._plan.is_whole and first + _SLICE_REQUESTS * num >= len(requests)
            self._pool.send(*(Load(requests=each, is_last=is_last) for each in parts))
            await self._pool.drain()


class _Window:
    """Watches one phase from the outside."""

    def __init__(
        self,
        runner: StageRunner,
        spec: StageSpec,
        feeder: _Feeder,
        start: int,
        until: int | None,
        is_warmup: bool,
    ) -> None:
        self._runner = runner
        self._pool = runner.pool
        self._spec = spec
        self._feeder = feeder
        self._start = start
        self._until = until
        self._is_warmup = is_warmup
        self._state = LiveState(start)
        self._is_ended = False
        runner.stopped_by = None

    async def wait_over(self) -> int:
        """Return when the window ended, or was ended."""
        while True:
            await self._look("warm-up" if self._is_warmup else "measure")
            ends = [worker.tick.window_end for worker in self._pool.workers if worker.tick]
            have_run_out = len(ends) == len(self._pool.workers) and None not in ends
            now = self._pool.now()
            if have_run_out and (self._until is None or self._is_ended):
                return max(max(end for end in ends if end is not None), self._start + 1)
            if self._until is not None and now >= self._until:
                return self._until
            if reason := self._reason_to_stop():
                self._runner.stopped_by = reason
                self._until = max(now, self._start + 1)
                self._is_ended = True
                self._pool.send(EndWindow(at=self._until))
                return self._until
            if have_run_out and self._num_open() == 0 and not self._spec.keeps_tail_load:
                return self._until or now

    async def wait_drained(self, deadline: int) -> None:
        """Wait until every measured request has ended, at most until `deadline`."""
        if self._is_warmup and self._runner.stopped_by:
            return
        while self._pool.now() < deadline and self._runner.interrupts.count < 2:
            ends = [worker.tick.window_end for worker in self._pool.workers if worker.tick]
            if None not in ends and len(ends) == len(self._pool.workers) and not self._num_open():
                return
            if self._runner.stopped_by == "unreachable":
                return
            await self._look("drain")

    def _num_open(self) -> int:
        return sum(worker.tick.num_measured_open for worker in self._pool.workers if worker.tick)

    async def _look(self, phase: str) -> None:
        runner, pool = self._runner, self._pool
        pool.changed.clear()
        wait_s = _LOOK_S
        if self._until is not None and phase != "drain":
            wait_s = min(wait_s, max((self._until - pool.now()) / _NS, 0.0))
        waiting = (pool.changed.wait(), runner.interrupts.changed.wait())
        tasks = [asyncio.ensure_future(each) for each in waiting]
        with contextlib.suppress(TimeoutError):
            await asyncio.wait(tasks, timeout=wait_s, return_when=asyncio.FIRST_COMPLETED)
        for task in tasks:
            task.cancel()
        runner.interrupts.changed.clear()
        pool.check()
        for worker in pool.workers:
            for tick in worker.new_ticks:
                self._state.add(tick)
            worker.new_ticks.clear()
        self._state.look(pool.now(), [w.tick for w in pool.workers if w.tick is not None])
        left_s = None if self._until is None else max(self._until - pool.now(), 0) / _NS
        runner.show(self._state, self._spec, phase, left_s)
        await self._feeder.feed_more()

    def _reason_to_stop(self) -> StopReason | None:
        state, rules = self._state, self._runner.rules
        if self._runner.interrupts.count:
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
