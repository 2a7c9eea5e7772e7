"""The application: the routes of the table, through the middleware. Nothing else."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable

from aiohttp import web

from tgi_cli.runtime.router import middleware, route_spans
from tgi_cli.runtime.router.api_keys import ApiKeys
from tgi_cli.runtime.router.connection import hide_software
from tgi_cli.runtime.router.openapi import openapi_json
from tgi_cli.runtime.router.route_table import Route, routes_of
from tgi_cli.runtime.router.routes.context import OPENAPI, SERVICE
from tgi_cli.runtime.router.service import Service


def make_app(service: Service) -> web.Application:
    """Return the application. Raises `ArgumentError` for a file of keys that can't be used."""
    config = service.config
    keys = ApiKeys(config.api_key, config.api_key_file)
    protected: set[web.AbstractRoute] = set()
    app = web.Application(
        middlewares=[
            route_spans.observe_request,
            middleware.count_open,
            middleware.map_errors,
            middleware.answer_preflights,
            middleware.check_key(keys, protected),
        ],
        client_max_size=config.limits.payload_limit_bytes,
    )
    app[SERVICE] = service
    routes = routes_of(config)
    app[OPENAPI] = openapi_json(routes)
    for route in routes:
        added = _add(app, route)
        if route.needs_key(config):
            protected.update(added)
    app.on_response_prepare.append(hide_software)
    app.on_response_prepare.append(middleware.cors_headers(config.cors_allow_origin))
    app.on_response_prepare.append(middleware.write_names_in_lower_case)
    app.cleanup_ctx.append(_while_serving(keys))
    return app


def _add(app: web.Application, route: Route) -> list[web.AbstractRoute]:
    methods = ("GET", "HEAD") if route.method == "GET" else (route.method,)
    return [app.router.add_route(method, route.path, route.handler) for method in methods]


def _while_serving(keys: ApiKeys) -> Callable[[web.Application], AsyncIterator[None]]:
    """Return the context in which a file of keys is watched."""

    async def watch(_app: web.Application) -> AsyncIterator[None]:
        task = asyncio.create_task(keys.watch())
        yield
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task

    return watch
