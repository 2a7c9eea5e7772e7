"""JSON replies, errors included."""

from __future__ import annotations

from collections.abc import Callable

import msgspec
from aiohttp import web

from tgi_cli.errors import RequestError
from tgi_cli.runtime.router.bodies import BodyError
from tgi_cli.runtime.router.schemas.common import ErrorBody

ErrorReply = Callable[[RequestError | BodyError], web.Response]
ERROR_REPLY: web.RequestKey[ErrorReply] = web.RequestKey("error_reply")
"""Set by a route that tells errors in a form of its own."""


def json_reply(
    value: object, *, status: int = 200, headers: dict[str, str] | None = None
) -> web.Response:
    return web.Response(
        body=msgspec.json.encode(value),
        status=status,
        content_type="application/json",
        headers=headers,
    )


def error_body(error: RequestError) -> ErrorBody:
    return ErrorBody(error.wire_text, error.kind)


def error_reply(error: RequestError) -> web.Response:
    return json_reply(error_body(error), status=error.status)
