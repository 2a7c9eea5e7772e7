"""Sleep to the microsecond inside an event loop, whose own timers count milliseconds.

One `timerfd` of the kernel, armed for the earliest of all who wait, wakes the loop as a socket
would. A process that sleeps is woken before one that spins, so on a machine with other work this
is on time where spinning isn't. Linux; elsewhere `open_timer` returns None.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import heapq
import os
import time
from itertools import count

_MONOTONIC, _NONBLOCK, _CLOEXEC = 1, os.O_NONBLOCK, getattr(os, "O_CLOEXEC", 0)
_NS = 1_000_000_000


class _TimeSpec(ctypes.Structure):
    _fields_ = (("seconds", ctypes.c_long), ("ns", ctypes.c_long))


class _TimerSpec(ctypes.Structure):
    _fields_ = (("interval", _TimeSpec), ("value", _TimeSpec))


class ExactTimer:
    """Moments are those of `time.perf_counter_ns`. Made and used inside one event loop."""

    def __init__(self, libc: ctypes.CDLL, descriptor: int) -> None:
        self._settime = libc.timerfd_settime
        self._descriptor = descriptor
        self._waiting: list[tuple[int, int, asyncio.Future[None]]] = []  # a heap by moment
        self._number = count()
        self._armed: int | None = None
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(descriptor, self._fired)

    async def sleep_until(self, moment: int) -> None:
        """Return when `moment` has come, at once if it has."""
        future = self._loop.create_future()
        heapq.heappush(self._waiting, (moment, next(self._number), future))
        self._arm()
        await future

    def _arm(self) -> None:
        while self._waiting and self._waiting[0][2].done():  # nobody waits for it any more
            heapq.heappop(self._waiting)
        earliest = self._waiting[0][0] if self._waiting else None
        if earliest is None or earliest == self._armed:
            return
        self._armed = earliest
        ahead = max(earliest - time.perf_counter_ns(), 1)  # 0 would disarm it
        spec = _TimerSpec(_TimeSpec(0, 0), _TimeSpec(*divmod(ahead, _NS)))
        self._settime(self._descriptor, 0, ctypes.byref(spec), None)

    def _fired(self) -> None:
        with contextlib.suppress(BlockingIOError):
            os.read(self._descriptor, 8)
        self._armed = None
        now = time.perf_counter_ns()
        while self._waiting and self._waiting[0][0] <= now:
            future = heapq.heappop(self._waiting)[2]
            if not future.done():
                future.set_result(None)
        self._arm()

    def close(self) -> None:
        self._loop.remove_reader(self._descriptor)
        os.close(self._descriptor)


def open_timer() -> ExactTimer | None:
    """Return a timer of the running loop; None where the kernel has none."""
    try:
        libc = ctypes.CDLL(None, use_errno=True)
        descriptor = libc.timerfd_create(_MONOTONIC, _NONBLOCK | _CLOEXEC)
    except (OSError, AttributeError):
        return None
    return None if descriptor < 0 else ExactTimer(libc, descriptor)
