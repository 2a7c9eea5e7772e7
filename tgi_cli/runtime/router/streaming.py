"""Server-sent events (spec/http-api.md section 8).

An error after the headers is one more event, never a silent close. A comment keeps an idle stream
alive.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncGenerator, Callable

import msgspec
from aiohttp import web

from tgi_cli.errors import IncompleteGenerationStream, RequestError

KEEP_ALIVE_S = 15.0
DONE = b"data: [DONE]\n\n"
_KEEP_ALIVE = b":\n\n"

_log = logging.getLogger(__name__)
_encode_into = msgspec.json.Encoder().encode_into

Frames = AsyncGenerator[bytes, None]


def event(value: object) -> bytes:
    """Return one event with `value` as JSON."""
    frame = bytearray(b"data: ")
    _encode_into(value, frame, -1)
    frame += b"\n\n"
    return bytes(frame)


async def send_events(
    request: web.Request,
    frames: Frames,
    headers: dict[str, str],
    error_frame: Callable[[RequestError], bytes],
) -> web.StreamResponse:
    """Send frames as they come, each in one write; `error_frame` says how an error ends the stream.

    A client that reads slowly holds up only its own frames: tokens wait as ids in the engine's
    client, and no request has more of them than its limit.
    """
    response = web.StreamResponse(
        headers={
            "content-type": "text/event-stream",
            "cache-control": "no-cache",
            "x-accel-buffering": "no",
            **headers,
        }
    )
    await response.prepare(request)
    keep_alive = _KeepAlive(response)
    try:
        async with contextlib.aclosing(frames):
            async for frame in frames:
                await response.write(frame)
                keep_alive.wrote = True
    except RequestError as exc:
        await response.write(error_frame(exc))
    except ConnectionError:
        pass  # the client is gone: there is nobody to tell
    except Exception:
        _log.exception("unexpected error", extra={"path": request.path})
        await response.write(error_frame(IncompleteGenerationStream()))
    finally:
        keep_alive.task.cancel()
    await response.write_eof()
    return response


class _KeepAlive:
    """Writes a comment after each quiet interval: one task per stream, one flag per event."""

    def __init__(self, response: web.StreamResponse) -> None:
        self._response = response
        self.wrote = False  # since the interval began
        self.task = asyncio.create_task(self._run())

    async def _run(self) -> None:
        with contextlib.suppress(ConnectionError):
            while True:
                self.wrote = False
                await asyncio.sleep(KEEP_ALIVE_S)
                if not self.wrote:
                    await self._response.write(_KEEP_ALIVE)
