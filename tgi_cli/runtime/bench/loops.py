"""How requests leave: by a clock, or from virtual users that wait for their answers.

Nobody is ever skipped or moved: what is late keeps the time that the plan gave it. A request counts
as measured if its planned time lies in the window; what comes after it only keeps the load up.
Spec: bench.md sections 6 and 8.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Coroutine
from typing import Any

from tgi_cli.runtime.bench.exchange import Exchange, Exchanges
from tgi_cli.runtime.bench.messages import Begin, User
from tgi_cli.runtime.bench.pacing import Pacer
from tgi_cli.runtime.bench.protocols import Protocol
from tgi_cli.runtime.bench.records import Phase, RequestRecord
from tgi_cli.runtime.bench.stages import PlannedRequest

_NS = 1_000_000_000
_ROUND_GAP_NS = 5_000_000  # between two rounds of a burst


class PlanQueue:
    """A worker's part of the plan, which may still be growing."""

    def __init__(self) -> None:
        self._requests: deque[PlannedRequest] = deque()
        self._is_whole = False
        self._more = asyncio.Event()

    def add(self, requests: list[PlannedRequest], *, is_last: bool) -> None:
        self._requests.extend(requests)
        self._is_whole = is_last
        self._more.set()

    def __len__(self) -> int:
        return len(self._requests)

    async def peek(self) -> PlannedRequest | None:
        """Return the next request and leave it there; None when the plan is at its end."""
        while not self._requests:
            if self._is_whole:
                return None
            self._more.clear()
            await self._more.wait()
        return self._requests[0]

    async def take(self) -> PlannedRequest | None:
        await self.peek()
        return self._requests.popleft() if self._requests else None

    async def take_conversation(self) -> list[PlannedRequest]:
        """Return the turns of the next conversation; none when the plan is at its end."""
        turns: list[PlannedRequest] = []
        while (following := await self.peek()) is not None:
            if turns and following.conversation != turns[0].conversation:
                break
            turns.append(self._requests.popleft())
        return turns

    def rest(self) -> list[PlannedRequest]:
        """Take out everything that was never sent."""
        rest = list(self._requests)
        self._requests.clear()
        return rest


class LoadLoop:
    """Sends the plan of one phase as its spec says. `clock` gives ns from the run's start."""

    def __init__(
        self,
        begin: Begin,
        plan: PlanQueue,
        exchanges: Exchanges,
        protocol: Protocol,
        pacer: Pacer,
        clock: Callable[[], int],
        worker: int,
        on_error: Callable[[BaseException], None],
    ) -> None:
        self._spec = begin.spec
        self._begin = begin
        self._plan = plan
        self._exchanges = exchanges
        self._protocol = protocol
        self._pacer = pacer
        self._clock = clock
        self._worker = worker
        self._on_error = on_error
        self._until = begin.until
        self._num_left = begin.num_requests
        self._tasks: set[asyncio.Task[Any]] = set()
        self.window_end: int | None = None  # when the last measured request had been planned
        self.window_is_over = asyncio.Event()
        self.is_warmup = begin.is_warmup
        self._is_stopped = False

    def end_window(self, at: int) -> None:
        """Stop to measure what is planned from `at` on."""
        self._until = at if self._until is None else min(self._until, at)

    def stop(self) -> None:
        """Send nothing more."""
        self._is_stopped = True

    async def run(self) -> None:
        """Send until the plan is at its end; cancel it to stop before."""
        spec = self._spec
        try:
            if spec.kind == "burst":
                await self._rounds()
            elif spec.kind == "conversations":
                await self._conversations()
            elif spec.is_closed_loop:
                await self._all([self._user(user) for user in self._begin.users])
            else:
                await self._by_the_clock()
            await self._idle()
            self._close_window(self._clock())
        finally:
            for task in self._tasks:
                task.cancel()

    async def _by_the_clock(self) -> None:
        start = self._begin.start
        while (planned := await self._plan.peek()) is not None:
            assert planned.sched_s is not None, planned.index
            sched = start + round(planned.sched_s * _NS)
            if not self._goes_on(sched):
                return
            await self._pacer.wait_until(sched)
            await self._plan.take()
            # The window may have been ended while this one waited for its time.
            if not self._goes_on(sched):
                return
            self._start(self._request(planned, sched))
        if self._spec.kind != "offline":
            self._close_window(self._clock())

    async def _user(self, user: User) -> None:
        sched, leave = self._presence(user)
        while sched < leave and self._goes_on(sched):
            await self._pacer.wait_until(sched)
            # The window may have been ended while this one waited for its time.
            if not self._goes_on(sched) or (planned := await self._plan.take()) is None:
                return
            exchange = await self._request(planned, sched, user.number)
            sched = self._next_sched(exchange, planned)

    def _next_sched(self, exchange: Exchange, planned: PlannedRequest) -> int:
        think_s = planned.think_s if planned.think_s is not None else self._spec.think_time_s
        end = exchange.record.end
        return (self._clock() if end is None else end) + round(think_s * _NS)

    def _presence(self, user: User) -> tuple[int, float]:
        """Return when a user comes and when it leaves, in ns from the run's start."""
        start = self._begin.start
        leave = float("inf") if user.stop_s is None else start + user.stop_s * _NS
        return start + round(user.start_s * _NS), leave

    async def _rounds(self) -> None:
        size = max(int(self._spec.value), 1)
        sched = self._begin.start
        for _ in range(max(self._spec.num_repeats, 1)):
            together: list[PlannedRequest] = []
            while len(together) < size and (planned := await self._plan.take()) is not None:
                together.append(planned)
            await self._pacer.wait_until(sched)
            if not together or not self._goes_on(sched):
                return
            await self._all([self._request(planned, sched) for planned in together])
            sched = self._clock() + _ROUND_GAP_NS

    async def _conversations(self) -> None:
        first = await self._plan.peek()
        if first is None or first.sched_s is None:
            await self._all([self._talker(user) for user in self._begin.users])
            return
        while turns := await self._plan.take_conversation():
            assert turns[0].sched_s is not None, turns[0].index
            sched = self._begin.start + round(turns[0].sched_s * _NS)
            if not self._goes_on(sched):
                return
            await self._pacer.wait_until(sched)
            self._start(self._talk(turns, sched))

    async def _talker(self, user: User) -> None:
        sched, _ = self._presence(user)
        while self._goes_on(sched) and (turns := await self._plan.take_conversation()):
            ended = await self._talk(turns, sched, user.number)
            sched = ended + round(self._spec.think_time_s * _NS)

    async def _talk(self, turns: list[PlannedRequest], sched: int, user: int | None = None) -> int:
        """Hold one conversation; return when it ended. A turn without an answer is the last."""
        said: list[tuple[bytes, str]] = []
        ended = self._clock()
        for place, planned in enumerate(turns):
            body = self._protocol.continued(planned.body, said)
            await self._pacer.wait_until(sched)
            if not self._goes_on(sched):
                break
            exchange = await self._request(planned, sched, user, body)
            ended = self._clock() if exchange.record.end is None else exchange.record.end
            if place + 1 < len(turns):
                sched = self._next_sched(exchange, turns[place + 1])
            if not exchange.record.is_ok:
                break
            said.append(
                (planned.body, exchange.answer if planned.answer is None else planned.answer)
            )
        return ended

    def _goes_on(self, sched: int) -> bool:
        """Whether a request planned for then is to be sent; notes when the window is over."""
        if self._is_stopped:
            return False
        if not self._is_measured(sched):
            self._close_window(sched)
            return self._spec.keeps_tail_load and not self.is_warmup
        return True

    def _is_measured(self, sched: int) -> bool:
        if self._num_left is not None and self._num_left <= 0:
            return False
        return self._until is None or sched < self._until

    def _close_window(self, at: int) -> None:
        if self.window_end is None:
            self.window_end = at if self._until is None else min(at, self._until)
            self.window_is_over.set()

    def _request(
        self, planned: PlannedRequest, sched: int, user: int | None = None, body: bytes = b""
    ) -> Coroutine[Any, Any, Exchange]:
        phase: Phase = "warmup" if self.is_warmup else "tail"
        if self._is_measured(sched):
            phase = phase if self.is_warmup else "measure"
            if self._num_left is not None:
                self._num_left -= 1
        record = RequestRecord(
            index=planned.index,
            phase=phase,
            worker=self._worker,
            user=user,
            turn=planned.turn,
            sched=sched,
            wake=self._clock(),
            planned_input_tokens=planned.input_tokens,
            planned_output_tokens=planned.output_tokens,
        )
        tally = self._exchanges.tally
        assert record.wake is not None
        tally.count(tally.lag, record.wake - sched)
        return self._exchanges.run(body or planned.body, record, planned.cancel_after_s)

    def never_sent(self) -> list[RequestRecord]:
        """Return those of the window that the end of the drain found unsent, as dropped."""
        records = []
        for planned in self._plan.rest():
            if planned.sched_s is None or self.is_warmup:
                continue
            sched = self._begin.start + round(planned.sched_s * _NS)
            if self._is_measured(sched):
                records.append(
                    RequestRecord(
                        index=planned.index,
                        phase="measure",
                        worker=self._worker,
                        turn=planned.turn,
                        sched=sched,
                        planned_input_tokens=planned.input_tokens,
                        planned_output_tokens=planned.output_tokens,
                        failure="dropped",
                        message="never sent: the stage was over",
                    )
                )
        return records

    def _start(self, work: Coroutine[Any, Any, Any]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self._on_error(error)

    async def _all(self, work: list[Coroutine[Any, Any, Any]]) -> None:
        for each in work:
            self._start(each)
        await self._idle()

    async def _idle(self) -> None:
        while self._tasks:
            await asyncio.wait(self._tasks)
