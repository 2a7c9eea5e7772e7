"""Wait for a moment more exactly than the event loop's timers do, which count milliseconds.

Sleep until shortly before, then yield in a loop: other work of the loop goes on meanwhile. The time
that is spun away counts as idle where a worker reports its share of the processor.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from tgi_cli.runtime.bench.exact_timer import open_timer

_SPIN_NS = 150_000  # before the moment, sleeping ends: longer than the kernel takes to wake us
_COARSE_SPIN_NS = 2_000_000  # the same with the loop's own timers, which may be a millisecond late
_MAX_TURN_NS = 50_000  # an empty turn of the loop takes less on any machine


class Pacer:
    """`clock` gives ns from `origin`, a moment of `time.perf_counter_ns`. Made inside the loop."""

    def __init__(self, clock: Callable[[], int], origin: int) -> None:
        self._clock = clock
        self._origin = origin
        self._timer = open_timer()
        self._num_spinning = 0
        self._turn_ns = _MAX_TURN_NS  # the shortest turn so far: an empty one
        self.idle_ns = 0

    async def wait_until(self, at: int) -> int:
        """Return the time when `at` has come, after one turn of the loop at least."""
        clock = self._clock
        now = await self._sleep_until(at)
        self._num_spinning += 1
        try:
            while True:
                await asyncio.sleep(0)
                before, now = now, clock()
                if self._num_spinning == 1:
                    turn_ns = now - before
                    self._turn_ns = min(self._turn_ns, turn_ns)
                    self.idle_ns += min(turn_ns, 2 * self._turn_ns)  # the rest was work
                if now >= at:
                    return now
        finally:
            self._num_spinning -= 1

    async def _sleep_until(self, at: int) -> int:
        """Return the time, shortly before `at`."""
        now = self._clock()
        if self._timer is not None:
            if at - now > _SPIN_NS:
                await self._timer.sleep_until(self._origin + at - _SPIN_NS)
            return self._clock()
        while at - now > _COARSE_SPIN_NS:
            await asyncio.sleep((at - now - _COARSE_SPIN_NS) / 1e9)
            now = self._clock()
        return now

    def close(self) -> None:
        if self._timer is not None:
            self._timer.close()
