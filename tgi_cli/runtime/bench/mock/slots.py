"""Slots: how many requests the mock works on at once; the others wait, first come first served."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager


class QueueFull(Exception):
    """Too many requests wait already."""


class Slots:
    def __init__(self, num_slots: int | None, max_queue: int | None) -> None:
        self._num_slots = num_slots  # None: no limit
        self._max_queue = max_queue
        self._waiting: deque[asyncio.Future[None]] = deque()  # by arrival
        self.num_running = 0

    @property
    def num_waiting(self) -> int:
        return len(self._waiting)

    @asynccontextmanager
    async def slot(self) -> AsyncIterator[None]:
        """Hold a slot inside the block. Raises `QueueFull`."""
        await self._take()
        try:
            yield
        finally:
            self._give_back()

    async def _take(self) -> None:
        if self._num_slots is None or self.num_running < self._num_slots:
            self.num_running += 1
            return
        if self._max_queue is not None and len(self._waiting) >= self._max_queue:
            raise QueueFull
        turn = asyncio.get_running_loop().create_future()
        self._waiting.append(turn)
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                self._give_back()  # the slot came in the moment in which the client left
            else:
                self._waiting.remove(turn)
            raise

    def _give_back(self) -> None:
        while self._waiting:
            turn = self._waiting.popleft()
            if not turn.done():
                turn.set_result(None)  # the slot goes to it: `num_running` stays
                return
        self.num_running -= 1
