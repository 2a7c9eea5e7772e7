"""Server-sent events (spec/http-api.md section 8).

An error after the headers is one more event, never a silent close. A comment keeps an idle stream
alive.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable

import msgspec
from aiohttp import web

from tgi_cli.errors import IncompleteGenerationStream, RequestError
from tgi_cli.runtime.router.observation import log_error

KEEP_ALIVE_S = 15.0
DONE = b"data: [DONE]\n\n"
_KEEP_ALIVE = b":\n\n"

_log = logging.getLogger(__name__)
_encode_into = msgspec.json.Encoder().encode_into


def event(value: object) -> bytes:
    """Return one event with `value` as JSON."""
    frame = bytearray(b"data: ")
    _encode_into(value, frame, -1)
    frame += b"\n\n"
    return bytes(frame)


async def send_events(
    request: web.Request,
    headers: dict[str, str],
    produce: Callable[[EventStream], Awaitable[None]],
    error_frame: Callable[[RequestError], bytes],
) -> web.StreamResponse:
    """Send what `produce` writes; `error_frame` says how an error ends the stream."""
    response = web.StreamResponse(
        headers={
            "content-type": "text/event-stream",
            "cache-control": "no-cache",
            "x-accel-buffering": "no",
            **headers,
        }
    )
    with contextlib.suppress(ConnectionError):  # the client is gone: there is nobody to tell
        await response.prepare(request)
        await _send(EventStream(request, response), response, produce, error_frame)
        await response.write_eof()
    return response


async def _send(
    stream: EventStream,
    response: web.StreamResponse,
    produce: Callable[[EventStream], Awaitable[None]],
    error_frame: Callable[[RequestError], bytes],
) -> None:
    """Let `produce` write, and tell an error as the last event. Raises `ConnectionError`."""
    keep_alive = asyncio.create_task(stream.keep_alive())
    try:
        await produce(stream)
    except RequestError as exc:
        log_error(exc)
        await response.write(error_frame(exc))
    except ConnectionError:
        raise
    except Exception:
        _log.exception("unexpected error")
        await response.write(error_frame(IncompleteGenerationStream()))
    finally:
        keep_alive.cancel()


class EventStream:
    """The open reply of a stream. `send` is for who can't wait, `write` for who can."""

    def __init__(self, request: web.Request, response: web.StreamResponse) -> None:
        self._protocol = request.protocol
        self._response = response
        self._is_chunked = response.headers.get("transfer-encoding") == "chunked"
        self._now_s = asyncio.get_running_loop().time
        self._wrote_s = self._now_s()  # when the newest event or comment was sent

    @property
    def is_behind(self) -> bool:
        """Whether the client reads more slowly than is sent, so that what is sent piles up."""
        return self._protocol.writing_paused

    def send(self, frame: bytes) -> None:
        """Hand `frame` to the socket in one piece, without the response's own queue.

        Raises:
            ConnectionError: the client is gone.
        """
        transport = self._protocol.transport
        if transport is None or transport.is_closing():
            raise ConnectionResetError("the client is gone")
        transport.write(b"%x\r\n%b\r\n" % (len(frame), frame) if self._is_chunked else frame)
        self._wrote_s = self._now_s()

    async def write(self, frame: bytes) -> None:
        """Send `frame`, and wait while the client is far behind. Raises `ConnectionError`."""
        await self._response.write(frame)
        self._wrote_s = self._now_s()

    async def keep_alive(self) -> None:
        """Write a comment whenever the newest frame is so old. One wake-up per interval."""
        with contextlib.suppress(ConnectionError):
            while True:
                quiet_s = self._now_s() - self._wrote_s
                if quiet_s < KEEP_ALIVE_S:
                    await asyncio.sleep(KEEP_ALIVE_S - quiet_s)
                else:
                    await self.write(_KEEP_ALIVE)
