"""The spans of a request's handler, for the log always and for traces if there are any.

A line that is written while a request is handled is in two spans: the request, named by method and
route, never by the path that the client chose; and the route's handler under TGI's name.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from aiohttp import hdrs, web

from tgi_cli.runtime.logs import Span, log_span
from tgi_cli.runtime.router.routes.context import SERVICE
from tgi_cli.runtime.router.tracing import Tracing, parse_traceparent

if TYPE_CHECKING:
    from aiohttp.typedefs import Handler

_TGI_NAMES = {"predict": "vertex_compatibility", "invocations": "sagemaker_compatibility"}


@web.middleware
async def observe_request(request: web.Request, handler: Handler) -> web.StreamResponse:
    """The outermost middleware: all that happens to a request happens within its spans."""
    match = request.match_info
    resource = match.route.resource
    attributes = {
        "http.method": request.method if request.method in hdrs.METH_ALL else "_OTHER",
        "http.route": "unknown" if resource is None else resource.canonical,
    }
    caller = parse_traceparent(request.headers.get("traceparent"))
    name = _handler_name(match)
    log_attributes: dict[str, object] = {**attributes}
    if caller is not None:
        log_attributes["trace_id"] = caller[0]
    with log_span(Span("HTTP request", log_attributes), Span(name)):
        tracing = request.app[SERVICE].tracing
        if tracing is None:
            return await handler(request)
        return await _trace(tracing, request, handler, name, attributes, caller)


def _handler_name(match: web.UrlMappingMatchInfo) -> str:
    if match.http_exception is not None:
        return "unmatched"
    name = getattr(match.handler, "__name__", "handler")
    return _TGI_NAMES.get(name, name)


async def _trace(
    tracing: Tracing,
    request: web.Request,
    handler: Handler,
    name: str,
    attributes: dict[str, str],
    caller: tuple[str, str] | None,
) -> web.StreamResponse:
    title = " ".join(attributes.values())
    with tracing.server_span(title, attributes, caller) as span:
        with tracing.span(name):
            response = await handler(request)
        span.set_attribute("http.status_code", response.status)
        return response
