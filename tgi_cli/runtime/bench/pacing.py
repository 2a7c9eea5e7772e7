"""Wait for a moment more exactly than the event loop's timers do, which count milliseconds.

Sleep until shortly before, then yield in a loop: other work of the loop goes on meanwhile. The time
that is spun away counts as idle where a worker reports its share of the processor.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

_SPIN_NS = 1_000_000  # before the moment, sleeping ends
_TIMER_NS = 1_000_000  # by which a timer may come late
_MAX_TURN_NS = 50_000  # an empty turn of the loop takes less on any machine


class Pacer:
    """`clock` gives ns from the run's start."""

    def __init__(self, clock: Callable[[], int]) -> None:
        self._clock = clock
        self._num_spinning = 0
        self._turn_ns = _MAX_TURN_NS  # the shortest turn so far: an empty one
        self.idle_ns = 0

    async def wait_until(self, at: int) -> int:
        """Return the time when `at` has come, after one turn of the loop at least."""
        clock = self._clock
        now = clock()
        while at - now > _SPIN_NS + _TIMER_NS:
            await asyncio.sleep((at - now - _SPIN_NS - _TIMER_NS) / 1e9)
            now = clock()
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
