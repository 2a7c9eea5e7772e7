"""`/docs`, a page that shows the API, and the OpenAPI document that it shows.

The page is one file without a reference to another host, so it works in a closed network; its
policy lets it run its own script and talk to this server, and nothing else.
"""

from __future__ import annotations

import base64
import hashlib
from pathlib import Path

from aiohttp import web

from tgi_cli.runtime.router.routes.context import OPENAPI

_PAGE = (Path(__file__).parents[1] / "static" / "docs.html").read_bytes()


def _policy(page: bytes) -> str:
    script = page.partition(b"<script>")[2].partition(b"</script>")[0]
    digest = base64.b64encode(hashlib.sha256(script).digest()).decode()
    return (
        f"default-src 'none'; script-src 'sha256-{digest}'; style-src 'unsafe-inline'; "
        "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )


_HEADERS = {
    "content-type": "text/html; charset=utf-8",
    "content-security-policy": _policy(_PAGE),
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
}


async def docs(_request: web.Request) -> web.Response:
    return web.Response(body=_PAGE, headers=_HEADERS)


async def docs_elsewhere(_request: web.Request) -> web.Response:
    """`/docs/`, where TGI's page was."""
    return web.Response(status=308, headers={"location": "../docs"})


async def openapi(request: web.Request) -> web.Response:
    return web.Response(body=request.app[OPENAPI], content_type="application/json")
