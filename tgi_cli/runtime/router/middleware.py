"""What every request passes: errors to replies, the API key, CORS.

Source: spec/http-api.md sections 2 and 5.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from collections.abc import Set as AbstractSet
from typing import TYPE_CHECKING

from aiohttp import web

from tgi_cli.errors import IncompleteGeneration, RequestError
from tgi_cli.runtime.router.api_keys import ApiKeys
from tgi_cli.runtime.router.bodies import BodyError
from tgi_cli.runtime.router.observation import log_error
from tgi_cli.runtime.router.replies import ERROR_REPLY, error_reply, json_reply
from tgi_cli.runtime.router.routes.context import SERVICE
from tgi_cli.runtime.router.schemas.common import ErrorBody

if TYPE_CHECKING:
    from aiohttp.typedefs import Handler, Middleware

_log = logging.getLogger(__name__)

_VARY = "origin, access-control-request-method, access-control-request-headers"


@web.middleware
async def map_errors(request: web.Request, handler: Handler) -> web.StreamResponse:
    """The edge of the process: every request is answered, and nothing internal is told."""
    try:
        return await handler(request)
    except BodyError as exc:
        return _tell(request, exc)
    except RequestError as exc:
        log_error(exc)
        return _tell(request, exc)
    except web.HTTPMethodNotAllowed as exc:
        return web.Response(status=405, headers={"allow": ",".join(sorted(exc.allowed_methods))})
    except web.HTTPException as exc:
        return web.Response(status=exc.status)
    except Exception:
        _log.exception("unexpected error")
        return _tell(request, IncompleteGeneration())


def _tell(request: web.Request, error: RequestError | BodyError) -> web.Response:
    if ERROR_REPLY in request:
        return request[ERROR_REPLY](error)
    if isinstance(error, RequestError):
        return error_reply(error)
    if "application/json" in request.headers.get("Accept", ""):
        return json_reply(ErrorBody(error.text, "validation"), status=error.status)
    return web.Response(text=error.text, status=error.status)


@web.middleware
async def count_open(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Let `drain` know when the last handler is done."""
    service = request.app[SERVICE]
    service.enter()
    try:
        return await handler(request)
    finally:
        service.leave()


def check_key(keys: ApiKeys, protected: AbstractSet[web.AbstractRoute]) -> Middleware:
    """Refuse protected routes without `Authorization: Bearer <key>`: 401, empty body."""

    @web.middleware
    async def middleware(request: web.Request, handler: Handler) -> web.StreamResponse:
        if (
            keys.is_required
            and request.match_info.route in protected
            and not keys.allow(request.headers.get("Authorization", ""))
        ):
            return web.Response(status=401)
        return await handler(request)

    return middleware


@web.middleware
async def answer_preflights(request: web.Request, handler: Handler) -> web.StreamResponse:
    if request.method == "OPTIONS" and "Access-Control-Request-Method" in request.headers:
        return web.Response(
            headers={
                "access-control-allow-methods": "GET,POST",
                "access-control-allow-headers": "content-type,authorization",
            }
        )
    return await handler(request)


def cors_headers(
    origins: tuple[str, ...],
) -> Callable[[web.Request, web.StreamResponse], Awaitable[None]]:
    """Return the signal that sets the headers of section 2.3 just before a reply is sent."""

    async def add(request: web.Request, response: web.StreamResponse) -> None:
        response.headers["vary"] = _VARY
        origin = request.headers.get("Origin")
        if not origins:
            response.headers["access-control-allow-origin"] = "*"
        elif origin in origins:
            response.headers["access-control-allow-origin"] = origin

    return add


async def write_names_in_lower_case(_request: web.Request, response: web.StreamResponse) -> None:
    """The signal after all others: names as TGI writes them, for who compares bytes."""
    headers = [(name.lower(), value) for name, value in response.headers.items()]
    response.headers.clear()
    # Nobody need know the library and its version.
    response.headers.extend(header for header in headers if header[0] != "server")
