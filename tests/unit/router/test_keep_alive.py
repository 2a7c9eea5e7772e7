"""When a stream is kept alive by a comment: spec/http-api.md section 8."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from tgi_cli.runtime.router import streaming
from tgi_cli.runtime.router.streaming import EventStream


class Clock:
    """Time that passes only while somebody sleeps, up to `end_s`; events come at their times."""

    def __init__(self, events_s: list[float], end_s: float) -> None:
        self.now_s = 0.0
        self._events_s = events_s
        self._end_s = end_s
        self.stream: Any = None

    def time(self) -> float:
        return self.now_s

    async def sleep(self, duration_s: float) -> None:
        wake_s = self.now_s + duration_s
        while self._events_s and self._events_s[0] <= wake_s:
            self.now_s = self._events_s.pop(0)
            await self.stream.write(b"event")
        self.now_s = wake_s
        if wake_s > self._end_s:
            raise ConnectionResetError


async def frames_of(monkeypatch, events_s: list[float], end_s: float) -> list[tuple[float, bytes]]:
    clock = Clock(events_s, end_s)
    written: list[tuple[float, bytes]] = []

    async def write(frame: bytes) -> None:
        written.append((clock.now_s, frame))

    loop = SimpleNamespace(time=clock.time)
    monkeypatch.setattr(
        streaming, "asyncio", SimpleNamespace(get_running_loop=lambda: loop, sleep=clock.sleep)
    )
    request: Any = SimpleNamespace(protocol=None)
    response: Any = SimpleNamespace(headers={}, write=write)
    clock.stream = EventStream(request, response)
    await clock.stream.keep_alive()
    return written


async def test_a_comment_comes_15_s_after_the_newest_event(monkeypatch):
    written = await frames_of(monkeypatch, [1.0, 14.0], end_s=60)

    comments = [at for at, frame in written if frame == b":\n\n"]
    assert comments == [29.0, 44.0, 59.0]


async def test_a_stream_with_events_has_no_comments(monkeypatch):
    written = await frames_of(monkeypatch, [7.0 * n for n in range(1, 11)], end_s=70)

    assert {frame for _, frame in written} == {b"event"}
