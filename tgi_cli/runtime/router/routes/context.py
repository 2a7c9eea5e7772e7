"""How a handler finds the service that its application belongs to."""

from __future__ import annotations

from aiohttp import web

from tgi_cli.runtime.router.service import Service

SERVICE = web.AppKey("service", Service)
