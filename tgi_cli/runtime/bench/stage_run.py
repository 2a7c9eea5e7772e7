"""Run one stage on the workers: warm-up, measured window, drain; and decide when it is over.

The bench's process is never in the way of a request: it sends the plan before, looks at counters
four times a second, and tells the workers when to stop. Spec: bench.md sections 6, 8 and 14.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

import msgspec
from msgspec import structs

from tgi_cli.runtime.bench.collecting import take_records
from tgi_cli.runtime.bench.counting import CountTokens
from tgi_cli.runtime.bench.feeder import Feeder, Plan, active_workers
from tgi_cli.runtime.bench.messages import (
    Begin,
    Finish,
    OpenConnections,
    User,
)
from tgi_cli.runtime.bench.pool import WorkerDied, WorkerPool
from tgi_cli.runtime.bench.records import RequestRecord, StageRecord
from tgi_cli.runtime.bench.schedule import user_starts, user_stops
from tgi_cli.runtime.bench.stages import StageSpec
from tgi_cli.runtime.bench.window import Interrupts, Show, StopReason, StopRules, Window

_NS = 1_000_000_000
_REPORT_S = 60.0  # for a worker to hand back its records
_LEAD_NS = 100_000_000  # between the word to begin and the beginning


@dataclass
class StageRunner:
    """Runs stages, one after the other, on one pool of workers."""

    pool: WorkerPool
    rules: StopRules
    interrupts: Interrupts
    show: Show
    count_text: CountTokens | None = None
    counts_all_texts: bool = True  # else a sample: each text costs a request
    saves_text: bool = False
    mean_e2e_s: float = 0.0  # of the latest phase: users' starts are spread over it
    stopped_by: StopReason | None = field(default=None, init=False)
    _warmup_s: float = field(default=0.0, init=False)
    _warmed: list[RequestRecord] = field(default_factory=list, init=False)

    async def warm_up(self, spec: StageSpec, plan: Plan) -> None:
        """Put the stage's load on without measuring.

        Raises:
            WorkerDied: a worker ended.
        """
        if spec.warmup_s <= 0 and not spec.warmup_requests:
            await self._open_connections(spec)
            self._warmup_s = 0.0
            return
        start = self.pool.now()
        duration_s = None if spec.warmup_requests else spec.warmup_s
        await self._run_phase(spec, plan, True, duration_s, spec.warmup_requests)
        self._take_e2e()
        self._warmed = await asyncio.to_thread(self._take_records)
        self._warmup_s = (self.pool.now() - start) / _NS

    async def send_all(self, spec: StageSpec, plan: Plan) -> None:
        """Send a plan that is no part of the stage, one request after the other."""
        one_user = msgspec.structs.replace(spec, kind="concurrency", value=1.0, stagger_s=0.0)
        await self._run_phase(one_user, plan, True, None, len(plan.requests))
        self.pool.finished.clear()

    async def measure(self, spec: StageSpec, plan: Plan, repeat: int) -> StageRecord:
        """Run the window and its drain; return all that it left behind. Raises `WorkerDied`."""
        w0, w1, drained = await self._run_phase(
            spec, plan, False, spec.duration_s, spec.num_requests
        )
        self._take_e2e()
        requests = self._warmed + await asyncio.to_thread(self._take_records)
        self._warmed = []
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
            warmup_s=self._warmup_s,
            drained=drained,
            num_workers=len(self.pool.workers),
            is_closed_loop=spec.is_closed_loop,
            has_cap=spec.max_concurrency is not None,
            num_planned=len(measured),
            offered_req_s=None if spec.is_closed_loop else offered(measured, w0, w1),
            stopped_by=self.stopped_by or ("requests" if spec.duration_s is None else "duration"),
            clock_jumped=any(done.clock_jumped for done in dones),
        )

    def _take_records(self) -> list[RequestRecord]:
        return take_records(
            self.pool.finished,
            self.count_text,
            counts_all_texts=self.counts_all_texts,
            saves_text=self.saves_text,
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
        feeder = Feeder(pool, plan, spec)
        await feeder.feed_first()
        for worker in pool.workers:
            worker.tick, worker.done = None, None
            worker.new_ticks.clear()
        start = pool.now() + _LEAD_NS
        until = None if duration_s is None else start + int(duration_s * _NS)
        pool.send(*self._beginnings(spec, is_warmup, start, until, num_requests))
        window = Window(
            pool,
            feeder,
            self.rules,
            self.interrupts,
            self.show,
            spec,
            start,
            until,
            is_warmup,
        )
        w1 = await window.wait_over()
        drain_end = max(w1, pool.now()) + int(spec.drain_s * _NS)
        await window.wait_drained(drain_end)
        drained, self.stopped_by = pool.now(), window.stopped_by
        pool.send(Finish())
        if not await pool.wait_for(lambda worker: worker.done is not None, _REPORT_S):
            raise WorkerDied("a worker process doesn't answer")
        return start, w1, drained

    def _users(self, spec: StageSpec) -> list[User]:
        if not spec.is_closed_loop or spec.kind == "burst":
            return []
        stagger_s = spec.stagger_s if spec.stagger_s is not None else self.mean_e2e_s
        spans = zip(user_starts(spec, stagger_s), user_stops(spec), strict=True)
        return [User(number, start_s, stop_s) for number, (start_s, stop_s) in enumerate(spans)]

    def _beginnings(
        self,
        spec: StageSpec,
        is_warmup: bool,
        start: int,
        until: int | None,
        num_requests: int | None,
    ) -> list[Begin]:
        num = active_workers(spec, len(self.pool.workers))
        users = self._users(spec)
        return [
            Begin(
                spec=spec,
                is_warmup=is_warmup,
                start=start,
                until=until,
                num_requests=None if num_requests is None else part(num_requests, index, num),
                users=users[index::num] if index < num else [],
                max_concurrency=None
                if spec.max_concurrency is None
                else part(spec.max_concurrency, index, num),
            )
            for index in range(len(self.pool.workers))
        ]


def part(whole: int, index: int, num: int) -> int:
    """Return what worker `index` of `num` gets of a number; those above have no part in it."""
    if index >= num:
        return 0
    return whole // num + (index < whole % num)


def offered(measured: list[RequestRecord], w0: int, w1: int) -> float | None:
    """Return the planned rate of an open loop's window, per second."""
    return None if w1 <= w0 else len(measured) / ((w1 - w0) / _NS)
