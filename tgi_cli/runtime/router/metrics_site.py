"""`/metrics` on a port of its own too (`--prometheus-port`), away from clients."""

from __future__ import annotations

import logging

from aiohttp import web

from tgi_cli.runtime.config.resolved import RouterConfig
from tgi_cli.runtime.router.connection import QuietRunner, hide_software
from tgi_cli.runtime.router.metrics import CONTENT_TYPE, Metrics

_log = logging.getLogger(__name__)


async def serve_metrics(metrics: Metrics, config: RouterConfig) -> web.AppRunner | None:
    """Serve `metrics` on `config.prometheus_port`; a port that is busy costs a warning, no more."""
    assert config.prometheus_port is not None

    async def answer(request: web.Request) -> web.Response:
        return web.Response(body=metrics.render(), headers={"content-type": CONTENT_TYPE})

    app = web.Application()
    app.router.add_get("/metrics", answer)
    app.on_response_prepare.append(hide_software)
    runner = QuietRunner(app, shutdown_timeout=0.0)
    await runner.setup()
    try:
        await web.TCPSite(runner, config.hostname, config.prometheus_port).start()
    except OSError:
        await runner.cleanup()
        _log.warning(
            "No metrics on port %d: it can't be listened on. They are on the main port.",
            config.prometheus_port,
        )
        return None
    return runner
