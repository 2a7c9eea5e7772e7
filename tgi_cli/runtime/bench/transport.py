"""One client over HTTP for a worker: send a body, stamp the moments, read what comes.

The rest of the bench sees `Transport` and `Reply` only, so that another reader of HTTP/1.1 can take
the place of aiohttp. Spec: bench.md sections 2 and 16.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable
from pathlib import Path
from typing import Any

import aiohttp
import msgspec
from yarl import URL

from tgi_cli.errors import UsageError
from tgi_cli.runtime.bench.records import RequestRecord

_READ_BUFFER_BYTES = 1 << 20  # with 64 KiB, long inputs stall when there are many at once
_KEEPALIVE_S = 300.0


class TransportOptions(msgspec.Struct, frozen=True, kw_only=True):
    url: str  # of the route
    headers: dict[str, str] = {}  # the key among them; they go to the server and nowhere else
    connect_timeout_s: float = 10.0
    keeps_alive: bool = True
    pool_size: int = 0  # connections at once; 0: as many as requests
    cacert: str | None = None
    verifies_tls: bool = True


class Reply:
    """A reply whose head is in."""

    __slots__ = ("_content", "_response", "content_type", "headers", "status")

    def __init__(self, response: aiohttp.ClientResponse) -> None:
        self._response = response
        self._content = response.content
        self.status = response.status
        self.headers = response.headers
        self.content_type = response.headers.get("content-type", "")

    async def read(self) -> bytes:
        """Return what has come, as soon as there is anything; b"" at the end."""
        return await self._content.readany()

    async def read_all(self) -> bytes:
        return await self._response.read()

    def release(self) -> None:
        """Give the connection back if the reply was read to its end, else hang up."""
        self._response.release()

    def hang_up(self) -> None:
        self._response.close()


class Transport:
    """Made inside the event loop. `clock` gives ns from the run's start."""

    def __init__(self, options: TransportOptions, clock: Callable[[], int]) -> None:
        self._options = options
        self._clock = clock
        self._url = URL(options.url)
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(
                limit=options.pool_size,
                ssl=tls_context(options),
                **(
                    {"keepalive_timeout": _KEEPALIVE_S}
                    if options.keeps_alive
                    else {"force_close": True}
                ),
            ),
            headers={"Content-Type": "application/json", "Accept-Encoding": "identity"}
            | options.headers,
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=options.connect_timeout_s),
            auto_decompress=False,
            cookie_jar=aiohttp.DummyCookieJar(),
            read_bufsize=_READ_BUFFER_BYTES,
            trace_configs=[self._stamps()],
        )

    def _stamps(self) -> aiohttp.TraceConfig:
        async def connected(_: Any, context: Any, __: Any) -> None:
            if context.trace_request_ctx is not None:
                context.trace_request_ctx.conn = self._clock()

        async def reused(_: Any, context: Any, __: Any) -> None:
            record = context.trace_request_ctx
            if record is not None:
                record.conn, record.conn_reused = self._clock(), True

        async def sent(_: Any, context: Any, __: Any) -> None:
            if context.trace_request_ctx is not None:
                context.trace_request_ctx.sent = self._clock()

        trace = aiohttp.TraceConfig()
        trace.on_connection_create_end.append(connected)
        trace.on_connection_reuseconn.append(reused)
        trace.on_request_chunk_sent.append(sent)
        return trace

    async def post(self, body: bytes, record: RequestRecord) -> Reply:
        """Send `body`; stamp `conn`, `sent`, `headers`. Raises what `failure_of` classes."""
        response = await self._session.post(
            self._url, data=body, allow_redirects=False, trace_request_ctx=record
        )
        record.headers = self._clock()
        if record.sent is None:
            record.sent = record.headers
        return Reply(response)

    async def open(self, count: int, path: str = "/health") -> None:
        """Open `count` connections before they are needed; a server that refuses is found later."""

        async def touch() -> None:
            try:
                async with self._session.get(self._url.with_path(path)) as response:
                    await response.read()
            except (aiohttp.ClientError, TimeoutError, OSError):
                return

        if self._options.keeps_alive:
            await asyncio.gather(*(touch() for _ in range(count)))

    async def close(self) -> None:
        await self._session.close()


def tls_context(options: TransportOptions) -> ssl.SSLContext | bool:
    """Return how servers are checked, for aiohttp. Raises `UsageError`."""
    if not options.verifies_tls:
        return False
    if options.cacert is None:
        return True
    if not Path(options.cacert).is_file():
        raise UsageError(f"--cacert: there is no file {options.cacert}.")
    try:
        return ssl.create_default_context(cafile=options.cacert)
    except ssl.SSLError as exc:
        raise UsageError(f"--cacert: {options.cacert} holds no certificate.") from exc
