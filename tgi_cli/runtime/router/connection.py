"""One client's connection: HTTP as aiohttp speaks it, with less said and less waited for.

What can't be parsed as HTTP never comes to the application, so its answer is made here: a status,
and nothing of the parser, of the bytes or of the software.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError

if TYPE_CHECKING:
    import asyncio

MAX_HEADER_BYTES = 8190  # of the first line, and of each header; more is a 400
FIRST_REQUEST_TIME_LIMIT_S = 60.0  # to send its head; who stays silent holds no socket for long


_log = logging.getLogger(__name__)


def _is_our_mistake(record: logging.LogRecord) -> bool:
    """Whether the HTTP library logs more than a request that can't be parsed.

    It would log those with a trace, and the bytes: an `Authorization` header among them.
    """
    exc = record.exc_info[1] if record.exc_info else None
    return not isinstance(exc, HttpProcessingError | web.RequestPayloadError)


_log.addFilter(_is_our_mistake)


class QuietRunner(web.AppRunner):
    """An `AppRunner` whose connections are `Connection`s. `settings` are the library's."""

    def __init__(self, app: web.Application, **settings: Any) -> None:
        super().__init__(
            app,
            access_log=None,
            logger=_log,
            max_line_size=MAX_HEADER_BYTES,
            max_field_size=MAX_HEADER_BYTES,
            **settings,
        )

    async def _make_server(self) -> web.Server:
        server = await super()._make_server()
        server.__class__ = _Server  # made by the application, which knows no other class
        return server


class _Server(web.Server):
    def __call__(self) -> web.RequestHandler:
        return Connection(self, loop=self._loop, **self._kwargs)


class Connection(web.RequestHandler):
    __slots__ = ("_silence",)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self._silence = self._loop.call_later(FIRST_REQUEST_TIME_LIMIT_S, self._end_silence)

    def connection_lost(self, exc: BaseException | None) -> None:
        self._silence.cancel()
        super().connection_lost(exc)

    def _end_silence(self) -> None:
        if self._request_count == 0:
            self.force_close()

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        super().handle_error(request, status, exc, message)  # for the log
        response = _StatusAlone(status=status)
        response.force_close()
        return response


async def hide_software(_request: web.BaseRequest, response: web.StreamResponse) -> None:
    """Take out, just before a reply is sent, the header that names library and version."""
    response.headers.popall("server", None)


class _StatusAlone(web.Response):
    async def _prepare_headers(self) -> None:
        await super()._prepare_headers()
        self.headers.popall("server", None)  # the application's signals don't come here
