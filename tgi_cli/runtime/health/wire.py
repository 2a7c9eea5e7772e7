"""Just enough HTTP/1.1 for a probe, over TCP, TLS or a Unix socket, within one deadline.

`http.client` would do it too, but importing it costs as much as everything else of a probe.
Requests ask for the connection to be closed, so that the end of a reply is the end of the stream
or what its length or its chunks say (RFC 9112 section 6).
"""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Iterator
from typing import Any, NamedTuple

from tgi_cli.runtime.config.probe import Target

_MAX_HEAD_BYTES = 1 << 16
_MAX_BODY_BYTES = 1 << 22
_READ_BYTES = 1 << 16


class WireError(Exception):
    """No reply that can be read; the message says why."""


class DeadlinePassed(WireError):
    """The time was over first."""


class Head(NamedTuple):
    status: int
    headers: dict[str, str]  # by lower-case name


class Reply(NamedTuple):
    status: int
    headers: dict[str, str]
    body: bytes

    def json(self) -> Any:
        """Return the decoded body, None if it isn't JSON."""
        try:
            return json.loads(self.body)
        except ValueError:
            return None


class Connection:
    """One request and its reply. Use it as a context manager."""

    def __init__(self, target: Target, deadline_s: float) -> None:
        """Connect before `deadline_s`, a `time.monotonic()`. Raises `WireError`."""
        self._target = target
        self._deadline_s = deadline_s
        self._buffer = bytearray()
        try:
            self._socket = self._connect()
        except TimeoutError as exc:
            raise DeadlinePassed("the server doesn't accept the connection") from exc
        except OSError as exc:
            raise WireError(exc.strerror or str(exc)) from exc

    def _connect(self) -> socket.socket:
        target = self._target
        if target.socket_path is not None:
            plain = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            plain.settimeout(self._left_s())
            plain.connect(target.socket_path)
            return plain
        # As bytes, since looking up a string loads the tables of international names.
        host: Any = target.host.encode() if target.host.isascii() else target.host
        plain = socket.create_connection((host, target.port), self._left_s())
        if not target.is_tls:
            return plain
        import ssl

        plain.settimeout(self._left_s())
        context = ssl.create_default_context()
        return context.wrap_socket(plain, server_hostname=target.host)

    def _left_s(self) -> float:
        left_s = self._deadline_s - time.monotonic()
        if left_s <= 0:
            raise TimeoutError
        return left_s

    def __enter__(self) -> Connection:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def send(self, method: str, path: str, headers: dict[str, str], body: bytes = b"") -> Head:
        """Send a request and return the beginning of its reply. Raises `WireError`."""
        target = self._target
        host = f"[{target.host}]" if ":" in target.host else target.host
        all_headers = {
            "host": host if target.socket_path is not None else f"{host}:{target.port}",
            "connection": "close",
            "user-agent": "tgi-health",
            **headers,
        }
        if method == "POST":
            all_headers |= {"content-type": "application/json", "content-length": str(len(body))}
        lines = [f"{method} {target.path}{path} HTTP/1.1"]
        lines += [f"{name}: {value}" for name, value in all_headers.items()]
        request = ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1", "replace") + body
        try:
            self._socket.settimeout(self._left_s())
            self._socket.sendall(request)
        except TimeoutError as exc:
            raise DeadlinePassed("the server doesn't read the request") from exc
        except OSError as exc:
            raise WireError(exc.strerror or str(exc)) from exc
        return self._read_head()

    def _read_head(self) -> Head:
        while (end := self._buffer.find(b"\r\n\r\n")) < 0:
            if len(self._buffer) > _MAX_HEAD_BYTES:
                raise WireError("the reply's headers are too long")
            if not self._fill():
                raise WireError("the server closed the connection without a reply")
        first, *rest = self._buffer[:end].decode("latin-1").split("\r\n")
        del self._buffer[: end + 4]
        words = first.split(" ", 2)
        if not words[0].startswith("HTTP/") or len(words) < 2 or not words[1].isdigit():
            raise WireError("what answers there isn't an HTTP server")
        pairs = (line.partition(":") for line in rest)
        return Head(
            int(words[1]), {name.strip().lower(): value.strip() for name, _, value in pairs}
        )

    def _fill(self) -> bool:
        """Read what comes next into the buffer; return false at the end of the stream."""
        try:
            self._socket.settimeout(self._left_s())
            data = self._socket.recv(_READ_BYTES)
        except TimeoutError as exc:
            raise DeadlinePassed("the server doesn't answer in time") from exc
        except OSError as exc:
            raise WireError(exc.strerror or str(exc)) from exc
        self._buffer += data
        return bool(data)

    def body_parts(self, head: Head) -> Iterator[bytes]:
        """Yield the body of the reply that `head` began, as it comes. Raises `WireError`."""
        if head.headers.get("transfer-encoding", "").lower() == "chunked":
            yield from self._chunks()
            return
        length = head.headers.get("content-length", "")
        left = int(length) if length.isdigit() else None  # None: until the end of the stream
        while left != 0:
            if not self._buffer and not self._fill():
                if left is not None:
                    raise WireError("the reply is cut off")
                return
            part = bytes(self._buffer[:left])
            del self._buffer[: len(part)]
            left = None if left is None else left - len(part)
            yield part

    def _chunks(self) -> Iterator[bytes]:
        while True:
            size_line = self._take_until(b"\r\n").partition(b";")[0].strip()
            try:
                size = int(size_line, 16)
            except ValueError as exc:
                raise WireError("the reply's chunks can't be read") from exc
            if size == 0:
                return
            while len(self._buffer) < size + 2:
                if not self._fill():
                    raise WireError("the reply is cut off")
            yield bytes(self._buffer[:size])
            del self._buffer[: size + 2]

    def _take_until(self, mark: bytes) -> bytes:
        while (end := self._buffer.find(mark)) < 0:
            if len(self._buffer) > _MAX_HEAD_BYTES or not self._fill():
                raise WireError("the reply is cut off")
        line = bytes(self._buffer[:end])
        del self._buffer[: end + len(mark)]
        return line


def get(
    target: Target, path: str, deadline_s: float, headers: dict[str, str] | None = None
) -> Reply:
    """Return the whole reply to a GET. Raises `WireError`."""
    with Connection(target, deadline_s) as connection:
        head = connection.send("GET", path, headers or {})
        body = bytearray()
        for part in connection.body_parts(head):
            body += part
            if len(body) > _MAX_BODY_BYTES:
                raise WireError("the reply is too long")
        return Reply(head.status, head.headers, bytes(body))
