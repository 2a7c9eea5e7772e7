"""What the mock did and when: one JSON object a line, one line a request, written at its end.

Moments are `perf_counter_ns`, which all processes of a machine share on Linux, so they can be
laid beside a client's own. A killed mock leaves whole lines.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import msgspec

from tgi_cli.errors import UsageError

Outcome = Literal[
    "ok",
    "gone",  # the client left
    "refused",  # a body or a field that the mock doesn't take
    "overloaded",  # the queue was full
    "status",
    "error-event",
    "truncated",
    "cut",
    "reset",
    "empty",
    "garbage",
    "stall",
    "hang",
]


class WrittenRequest(msgspec.Struct, kw_only=True):
    """One request that asked for text. Lists are parallel: one entry per write with tokens."""

    index: int  # by arrival, from 0
    path: str
    received: int
    started: int | None = None  # got its slot
    headers: int | None = None
    writes: list[int] = []
    tokens: list[int] = []  # that a write completes
    events: list[int] = []
    ended: int | None = None  # the end mark; without one, the last thing that was sent
    input_tokens: int | None = None
    output_tokens: int = 0
    status: int | None = None
    outcome: Outcome = "ok"


class WriteLog:
    """Writes a file, or does nothing without one. Raises `UsageError` if it can't be written."""

    def __init__(self, path: Path | None) -> None:
        try:
            self._file = path.open("wb") if path is not None else None
        except OSError as exc:
            raise UsageError(f"--log {path} can't be written: {exc.strerror}.") from exc
        self._encoder = msgspec.json.Encoder()

    def add(self, request: WrittenRequest) -> None:
        if self._file is not None:
            self._file.write(self._encoder.encode(request) + b"\n")
            self._file.flush()

    def close(self) -> None:
        if self._file is not None:
            self._file.close()


def read_write_log(path: Path) -> Iterator[WrittenRequest]:
    """Yield the requests of a log, in the order in which they ended."""
    decoder = msgspec.json.Decoder(WrittenRequest)
    with path.open("rb") as file:
        for line in file:
            yield decoder.decode(line)
