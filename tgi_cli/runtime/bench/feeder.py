"""Deal a plan to the workers, whatever their number: it never changes what is sent when.

Spec: bench.md section 6.
"""

from __future__ import annotations

import asyncio
from typing import Protocol

from tgi_cli.runtime.bench.messages import Load
from tgi_cli.runtime.bench.pool import WorkerPool
from tgi_cli.runtime.bench.stages import PlannedRequest, StageSpec

_LOW_S = 2.0  # of load that must be left in a worker's plan, else more is sent
_TICKS_A_SECOND = 4
_SLICE_REQUESTS = 500  # in one message


class Plan(Protocol):
    """A phase's requests. An open loop's are all there; users are given more as they need them."""

    requests: list[PlannedRequest]
    is_whole: bool

    def more(self, count: int) -> list[PlannedRequest]:
        """Return the `count` requests that follow."""
        ...


class Feeder:
    """Deals the plan to the workers: entry i to worker i mod m, conversations as a whole."""

    def __init__(self, pool: WorkerPool, plan: Plan, spec: StageSpec) -> None:
        self._num_active = active_workers(spec, len(pool.workers))
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
        active = self._pool.workers[: self._num_active]
        ticks = [worker.tick for worker in active if worker.tick is not None]
        if not ticks:
            return
        num_sent = sum(tick.num_sent for tick in ticks)
        self._per_tick = max(self._per_tick, num_sent - self._num_sent)
        self._num_sent = num_sent
        low = self._per_tick * _LOW_S * _TICKS_A_SECOND / len(ticks)
        if min(tick.num_left for tick in ticks) < max(low, 4):
            wanted = int(max(2 * low * len(ticks), 8 * len(ticks)))
            # In a thread: texts take time to make, and a remote tokenizer needs this loop.
            await self._deal(await asyncio.to_thread(self._plan.more, wanted))

    async def _deal(self, requests: list[PlannedRequest]) -> None:
        num = self._num_active
        rest = len(self._pool.workers) - num
        for first in range(0, max(len(requests), 1), _SLICE_REQUESTS * num):
            parts: list[list[PlannedRequest]] = [[] for _ in range(num)]
            for request in requests[first : first + _SLICE_REQUESTS * num]:
                owner = request.conversation if self._by_conversation else request.index
                parts[(owner or 0) % num].append(request)
            is_last = self._plan.is_whole and first + _SLICE_REQUESTS * num >= len(requests)
            loads = [Load(requests=each, is_last=is_last) for each in parts]
            self._pool.send(*loads, *[Load(requests=[], is_last=True)] * rest)
            await self._pool.drain()


def active_workers(spec: StageSpec, num_workers: int) -> int:
    """Return how many workers have a part: each needs a user, or room below the cap.

    A burst is sent by one, since its rounds wait for all answers of the one before.
    """
    if spec.kind == "burst":
        return 1
    if spec.is_closed_loop:
        return min(num_workers, max(int(max(spec.value, spec.ramp_to or 0)), 1))
    return min(num_workers, spec.max_concurrency or num_workers)
