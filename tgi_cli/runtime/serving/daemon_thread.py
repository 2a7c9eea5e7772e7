"""Run something slow and uninterruptible beside the event loop, without ever waiting for its end.

asyncio's own executor joins its threads at exit; a download that hangs would then keep a server
that was told to stop.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")

_NAME = "tgi-daemon"


async def run_in_daemon_thread(function: Callable[[], T]) -> T:
    """Return what `function` returns or raise what it raises; cancelling abandons it."""
    loop = asyncio.get_running_loop()
    outcome: asyncio.Future[T] = loop.create_future()

    def report(result: T | None, error: BaseException | None) -> None:
        if outcome.done():
            return  # abandoned
        if error is not None:
            outcome.set_exception(error)
        else:
            outcome.set_result(result)  # type: ignore[arg-type]  # a T when there is no error

    def work() -> None:
        result, error = None, None
        try:
            result = function()
        except BaseException as exc:  # raised again in the coroutine
            error = exc
        with contextlib.suppress(RuntimeError):  # the loop has closed: nobody waits any more
            loop.call_soon_threadsafe(report, result, error)

    threading.Thread(target=work, name=_NAME, daemon=True).start()
    return await outcome


def is_any_running() -> bool:
    """Whether an abandoned call is still at work."""
    return any(thread.name == _NAME for thread in threading.enumerate())
