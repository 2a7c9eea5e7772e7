from __future__ import annotations

import asyncio
import threading

import pytest

from tgi_cli.runtime.serving.daemon_thread import is_any_running, run_in_daemon_thread


async def test_the_result_comes_back() -> None:
    assert await run_in_daemon_thread(lambda: 13) == 13


async def test_an_error_comes_back() -> None:
    def fail() -> int:
        raise ValueError("as asked")

    with pytest.raises(ValueError, match="as asked"):
        await run_in_daemon_thread(fail)


async def test_cancelling_does_not_wait_for_the_end() -> None:
    release, ended = threading.Event(), threading.Event()

    def work() -> None:
        release.wait(30)
        ended.set()

    task = asyncio.create_task(run_in_daemon_thread(work))
    await asyncio.sleep(0)  # lets the task start its thread
    task.cancel()

    with pytest.raises(asyncio.CancelledError):
        await task
    assert is_any_running()
    release.set()
    assert ended.wait(30)
