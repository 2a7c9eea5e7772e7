"""Nobody is woken early, and everybody is woken."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator

import pytest

from tgi_cli.runtime.bench import pacing
from tgi_cli.runtime.bench.exact_timer import ExactTimer, open_timer
from tgi_cli.runtime.bench.pacing import Pacer

MS = 1_000_000


@pytest.fixture
async def timer() -> Iterator[ExactTimer]:
    timer = open_timer()
    if timer is None:
        pytest.skip("this kernel has no timerfd")
    yield timer
    timer.close()


async def test_all_who_wait_are_woken_at_their_own_moments(timer: ExactTimer) -> None:
    start = time.perf_counter_ns()
    woken: list[int] = []

    async def wait(after_ms: int) -> None:
        await timer.sleep_until(start + after_ms * MS)
        assert time.perf_counter_ns() >= start + after_ms * MS
        woken.append(after_ms)

    await asyncio.gather(*map(wait, (31, 7, 13, 7, 23, -5, 0)))

    assert sorted(woken) == [-5, 0, 7, 7, 13, 23, 31]
    assert woken[-1] == 31


async def test_those_who_gave_up_keep_nobody_from_waking(timer: ExactTimer) -> None:
    start = time.perf_counter_ns()
    first = asyncio.create_task(timer.sleep_until(start + 5 * MS))
    second = asyncio.create_task(timer.sleep_until(start + 9 * MS))
    await asyncio.sleep(0)

    first.cancel()
    await second

    assert time.perf_counter_ns() >= start + 9 * MS
    assert first.cancelled()


@pytest.mark.parametrize("has_timer", [True, False])
async def test_a_moment_is_waited_for_with_and_without_the_kernels_timer(
    monkeypatch: pytest.MonkeyPatch, has_timer: bool
) -> None:
    if not has_timer:
        monkeypatch.setattr(pacing, "open_timer", lambda: None)
    origin = time.perf_counter_ns()
    pacer = Pacer(lambda: time.perf_counter_ns() - origin, origin)

    moments = (4 * MS, 4 * MS + 70_000, 9 * MS, 2 * MS)  # the last one has gone by
    times = [await pacer.wait_until(moment) for moment in moments]
    pacer.close()

    assert all(now >= at for now, at in zip(times, moments, strict=True))
    assert times == sorted(times)
