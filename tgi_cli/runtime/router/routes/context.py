"""How a handler finds what its application holds."""

from __future__ import annotations

from aiohttp import web

from tgi_cli.runtime.router.service import Service

SERVICE = web.AppKey("service", Service)
OPENAPI = web.AppKey("openapi", bytes)  # the document, in JSON
