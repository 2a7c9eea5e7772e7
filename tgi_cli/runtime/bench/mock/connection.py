"""One HTTP/1.1 connection of the mock: requests in, bytes out exactly as they are handed over.

An HTTP library would merge, buffer and tidy up what a faulty server must do badly, and cost several
times the work. Kept-alive connections and pipelined requests are served one request after another;
a body must have a content-length.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import struct
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

_log = logging.getLogger(__name__)

_MAX_HEAD_BYTES = 65_536
_MAX_BODY_BYTES = 64 << 20
_REASONS = {200: "OK", 400: "Bad Request", 404: "Not Found", 422: "Unprocessable Entity"}


@dataclass(frozen=True, slots=True)
class HttpRequest:
    method: str
    path: str
    body: bytes
    received_ns: int  # `perf_counter_ns`, when its last byte had been read
    is_last: bool  # of its connection


class BadRequest(Exception):
    """Bytes that are no request; `status` is the answer."""

    def __init__(self, status: int) -> None:
        super().__init__(status)
        self.status = status


Answer = Callable[[HttpRequest, "Connection"], Awaitable[None]]


class Connection(asyncio.Protocol):
    def __init__(self, answer: Answer, connections: set[Connection]) -> None:
        self._answer = answer
        self._connections = connections  # those that are open
        self._buffer = bytearray()
        self._task: asyncio.Task[None] | None = None  # the request that is being answered
        self._transport: asyncio.Transport | None = None
        self._can_write = asyncio.Event()
        self._can_write.set()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._connections.add(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        self._connections.discard(self)
        self._can_write.set()
        if self._task is not None:
            self._task.cancel()

    def pause_writing(self) -> None:
        self._can_write.clear()

    def resume_writing(self) -> None:
        self._can_write.set()

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        if self._task is None:
            self._start_next()

    def _start_next(self) -> None:
        """Answer the next request, if all of it is there."""
        if self._transport is None or self._transport.is_closing():
            return
        try:
            request = take_request(self._buffer)
        except BadRequest as exc:
            self.send(whole_reply(exc.status, b"{}"))
            self.close()
            return
        if request is not None:
            self._task = asyncio.create_task(self._run(request))

    async def _run(self, request: HttpRequest) -> None:
        try:
            await self._answer(request, self)
        except ConnectionError:
            return  # the client is gone: there is nobody to tell
        except Exception:
            _log.exception("unexpected error")
            self.reset()
            return
        self._task = None
        if request.is_last:
            self.close()
        self._start_next()

    def send(self, data: bytes) -> int:
        """Write `data` and return the moment just before. Raises `ConnectionError`: no client.

        A moment after it would often be late: the reader wakes up in between.
        """
        if self._transport is None or self._transport.is_closing():
            raise ConnectionResetError("the client is gone")
        now = time.perf_counter_ns()
        self._transport.write(data)
        return now

    async def writable(self) -> None:
        """Wait while the client is far behind."""
        await self._can_write.wait()

    def close(self) -> None:
        """Close the connection when what was sent is out."""
        if self._transport is not None:
            self._transport.close()

    async def end(self) -> None:
        """Reset the connection and wait for the end of the request that was being answered."""
        self.reset()
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])

    def reset(self) -> None:
        """Close the connection by a reset, as a process that is killed does."""
        if self._transport is not None:
            sock = self._transport.get_extra_info("socket")
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self._transport.abort()


def whole_reply(
    status: int,
    body: bytes,
    headers: tuple[tuple[str, str], ...] = (),
    content_type: str = "application/json",
) -> bytes:
    """Return a whole HTTP answer."""
    extra = "".join(f"{name}: {value}\r\n" for name, value in headers)
    head = (
        f"HTTP/1.1 {status} {_REASONS.get(status, 'Error')}\r\ncontent-type: {content_type}\r\n"
        f"{extra}content-length: {len(body)}\r\n\r\n"
    )
    return head.encode("latin-1") + body


STREAM_HEAD = (
    b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ncache-control: no-cache\r\n"
    b"transfer-encoding: chunked\r\n\r\n"
)
STREAM_END = b"0\r\n\r\n"


def chunk(data: bytes) -> bytes:
    """Return one chunk of a streamed body."""
    return b"%x\r\n%b\r\n" % (len(data), data)


def take_request(buffer: bytearray) -> HttpRequest | None:
    """Take the first request out of `buffer`, or return None if it isn't whole yet."""
    end = buffer.find(b"\r\n\r\n")
    if end < 0:
        if len(buffer) > _MAX_HEAD_BYTES:
            raise BadRequest(431)
        return None
    lines = bytes(buffer[:end]).split(b"\r\n")
    words = lines[0].split(b" ")
    if len(words) != 3 or not words[2].startswith(b"HTTP/1."):
        raise BadRequest(400)
    length, is_last = _read_headers(lines[1:])
    if len(buffer) < end + 4 + length:
        return None
    body = bytes(buffer[end + 4 : end + 4 + length])
    del buffer[: end + 4 + length]
    path = words[1].split(b"?", 1)[0]
    return HttpRequest(
        words[0].decode("latin-1"), path.decode("latin-1"), body, time.perf_counter_ns(), is_last
    )


def _read_headers(header_lines: list[bytes]) -> tuple[int, bool]:
    """Return the body's length, and whether the client wants the connection closed after it."""
    length, is_last = 0, False
    for line in header_lines:
        name, _, value = line.partition(b":")
        lowered = name.strip().lower()
        if lowered == b"transfer-encoding":
            raise BadRequest(411)
        if lowered == b"connection":
            is_last = value.strip().lower() == b"close"
        if lowered == b"content-length":
            digits = value.strip()
            if not digits.isdigit() or len(digits) > 12:
                raise BadRequest(400)
            length = int(digits)
    if length > _MAX_BODY_BYTES:
        raise BadRequest(413)
    return length, is_last
