"""Who is told how far a download is: `Progress`, with a silent and a line-by-line form.

Several threads tell at the same time. The form with bars is the command line's.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Literal, Protocol

Phase = Literal["download", "verify", "convert"]

SPEED_WINDOW_S = 30.0
LINE_EVERY_S = 10.0
_DONE_WORDS = {"download": "downloaded", "verify": "verified", "convert": "converted"}


class Progress(Protocol):
    def begin(self, phase: Phase, num_files: int, num_bytes: int, num_done: int = 0) -> None:
        """A phase starts; `num_done` of its bytes are here already."""

    def begin_file(self, name: str, num_bytes: int, num_done: int = 0) -> None:
        """Work on a file starts; `num_done` of its bytes count already."""

    def advance(self, name: str, num_bytes: int) -> None:
        """So many more bytes of a file are done; fewer if it is begun anew."""

    def end_file(self, name: str) -> None: ...

    def end(self) -> None:
        """The phase is over, for whatever reason."""

    def say(self, text: str) -> None:
        """Something happened that a person may want to know."""


class SilentProgress:
    """Tells nobody."""

    def begin(self, phase: Phase, num_files: int, num_bytes: int, num_done: int = 0) -> None: ...

    def begin_file(self, name: str, num_bytes: int, num_done: int = 0) -> None: ...

    def advance(self, name: str, num_bytes: int) -> None: ...

    def end_file(self, name: str) -> None: ...

    def end(self) -> None: ...

    def say(self, text: str) -> None: ...


class LineProgress:
    """One line at the start, each ten seconds and at the end: for logs."""

    def __init__(
        self, write: Callable[[str], None], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._write = write
        self._clock = clock
        self._lock = threading.Lock()
        self._phase: Phase = "download"
        self._num_bytes = 0
        self._done = 0
        self._fresh = 0  # done in this run
        self._started_at = self._told_at = 0.0
        self._speed = Speed()

    def begin(self, phase: Phase, num_files: int, num_bytes: int, num_done: int = 0) -> None:
        with self._lock:
            self._phase, self._num_bytes, self._done = phase, num_bytes, num_done
            self._fresh = 0
            self._started_at = self._told_at = self._clock()
            self._speed = Speed()
            self._speed.add(self._started_at, 0)
        resumed = f", {size_text(num_done)} of it here already" if num_done else ""
        self.say(f"{phase}: {num_files} file(s), {size_text(num_bytes)}{resumed}")

    def begin_file(self, name: str, num_bytes: int, num_done: int = 0) -> None: ...

    def advance(self, name: str, num_bytes: int) -> None:
        with self._lock:
            now = self._clock()
            self._done += num_bytes
            self._fresh += num_bytes
            self._speed.add(now, num_bytes)
            if now - self._told_at < LINE_EVERY_S:
                return
            self._told_at = now
            line = self._line(now)
        self._write(line)

    def end_file(self, name: str) -> None: ...

    def end(self) -> None:
        with self._lock:
            seconds = self._clock() - self._started_at
            average = f", {size_text(self._fresh / seconds)}/s" if seconds > 0 else ""
        self._write(
            f"{_DONE_WORDS[self._phase]}: {size_text(self._done)} of {size_text(self._num_bytes)} "
            f"in {time_text(seconds)}{average}"
        )

    def say(self, text: str) -> None:
        self._write(text)

    def _line(self, now: float) -> str:
        per_s = self._speed.per_s(now)
        left = max(0, self._num_bytes - self._done)
        eta = f", {time_text(left / per_s)} left" if per_s > 0 else ""
        share = self._done / self._num_bytes if self._num_bytes else 1.0
        return (
            f"{self._phase}: {share:.0%}, {size_text(self._done)} of {size_text(self._num_bytes)}, "
            f"{size_text(per_s)}/s{eta}"
        )


class Speed:
    """Bytes a second over the last 30 seconds."""

    def __init__(self) -> None:
        self._steps: deque[tuple[float, int]] = deque()
        self._sum = 0

    def add(self, now: float, num_bytes: int) -> None:
        self._steps.append((now, num_bytes))
        self._sum += num_bytes
        while now - self._steps[0][0] > SPEED_WINDOW_S:
            self._sum -= self._steps.popleft()[1]

    def per_s(self, now: float) -> float:
        if not self._steps or now <= self._steps[0][0]:
            return 0.0
        return max(0.0, self._sum / (now - self._steps[0][0]))


def size_text(num_bytes: float) -> str:
    """Return a size for people: `1.5 GB`."""
    for unit in ("bytes", "kB", "MB", "GB"):
        if num_bytes < 1000:
            return f"{num_bytes:.0f} {unit}" if unit == "bytes" else f"{num_bytes:.1f} {unit}"
        num_bytes /= 1000
    return f"{num_bytes:.1f} TB"


def time_text(seconds: float) -> str:
    """Return a length of time for people: `42 s`, `3 min 20 s`, `2 h 5 min`."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"
