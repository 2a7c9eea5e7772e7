"""The mock's sense of time, which stands still while the mock is frozen.

Work time is real time without the freeze: a token that is due 20 ms after another comes 20 ms of
work time after it. Both count nanoseconds of `perf_counter_ns`.
"""

from __future__ import annotations

import asyncio
import time

from tgi_cli.runtime.config.mock import Freeze


class WorkClock:
    def __init__(self, freeze: Freeze | None) -> None:
        self._freeze = freeze
        self._num_requests = 0
        self._frozen_from: int | None = None  # real time; None: not known yet
        self._length = round(freeze.length_s * 1e9) if freeze is not None else 0

    @property
    def frozen_span(self) -> tuple[int, int] | None:
        """The freeze's beginning and end in real time, once they are known."""
        if self._frozen_from is None:
            return None
        return self._frozen_from, self._frozen_from + self._length

    def request_came(self) -> None:
        """Count a request: the freeze is set by the first, or begins at one of them."""
        freeze = self._freeze
        if freeze is not None and self._frozen_from is None:
            if freeze.after_s is not None:
                self._frozen_from = time.perf_counter_ns() + round(freeze.after_s * 1e9)
            elif self._num_requests == freeze.at_request:
                self._frozen_from = time.perf_counter_ns()
        self._num_requests += 1

    def now(self) -> int:
        """Return the work time."""
        real = time.perf_counter_ns()
        if self._frozen_from is None or real < self._frozen_from:
            return real
        return max(self._frozen_from, real - self._length)

    async def sleep_until(self, work_ns: int) -> None:
        """Return when the work time is `work_ns` or later, at once if it is."""
        while (left := work_ns - self.now()) > 0:
            if self._frozen_from is not None and work_ns > self._frozen_from:
                left = work_ns + self._length - time.perf_counter_ns()
            await asyncio.sleep(left / 1e9)

    async def thawed(self) -> None:
        """Return when the mock isn't frozen."""
        while (span := self.frozen_span) is not None:
            real = time.perf_counter_ns()
            if not span[0] <= real < span[1]:
                return
            await asyncio.sleep((span[1] - real) / 1e9)
