"""The HTTP server: listen, serve, drain.

Draining closes the port first, so that no new connection comes; what is open goes on until it
ends or the time is over. Kept-alive connections see 503 from `/health` meanwhile.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging

from aiohttp import web

from tgi_cli.errors import ListenError
from tgi_cli.runtime.config.resolved import RouterConfig
from tgi_cli.runtime.ipc.client import EngineClient
from tgi_cli.runtime.router.app import make_app
from tgi_cli.runtime.router.connection import QuietRunner
from tgi_cli.runtime.router.metrics import Metrics
from tgi_cli.runtime.router.metrics_site import serve_metrics
from tgi_cli.runtime.router.service import Service
from tgi_cli.runtime.text.chat_template import ChatTemplate
from tgi_cli.runtime.text.grammar_checker import GrammarChecker
from tgi_cli.runtime.text.tokenizer import Tokenizer

_log = logging.getLogger(__name__)
_LAST_WORDS_S = 1.0  # for the errors of requests that are cut off

_REASONS = {
    errno.EADDRINUSE: ("the port is in use", "Stop the other server or choose another --port."),
    errno.EACCES: ("permission denied", "Ports below 1024 need privileges: choose another --port."),
    errno.EADDRNOTAVAIL: ("this machine has no such address", "Check --hostname."),
}


class RouterServer:
    def __init__(
        self,
        config: RouterConfig,
        engine: EngineClient,
        tokenizer: Tokenizer,
        chat_template: ChatTemplate,
        grammar_checker: GrammarChecker,
    ) -> None:
        self._config = config
        self._engine = engine
        self._service = Service(config, engine, tokenizer, chat_template, grammar_checker)
        self._runner = QuietRunner(
            make_app(self._service),
            handler_cancellation=True,  # a client that goes away cancels its handler
            shutdown_timeout=1.0,  # for the last bytes; `drain` has waited for the rest
        )
        self._site: web.TCPSite | None = None
        self._metrics_runner: web.AppRunner | None = None
        self._port = config.port

    @property
    def metrics(self) -> Metrics:
        return self._service.metrics

    @property
    def url(self) -> str:
        host = "127.0.0.1" if self._config.hostname in ("0.0.0.0", "::") else self._config.hostname
        return f"http://{f'[{host}]' if ':' in host else host}:{self._port}"

    async def start(self) -> None:
        """Open the port. Raises `ListenError`, with the fix."""
        await self._runner.setup()
        config = self._config
        self._site = web.TCPSite(self._runner, config.hostname, config.port, backlog=1024)
        try:
            await self._site.start()
        except OSError as exc:
            reason, hint = _REASONS.get(exc.errno or 0, (exc.strerror or "unknown reason", None))
            raise ListenError(
                f"Can't listen on {config.hostname}:{config.port}: {reason}.", hint=hint
            ) from exc
        self._port = self._runner.addresses[0][1]
        if config.prometheus_port not in (None, self._port):
            self._metrics_runner = await serve_metrics(self._service.metrics, config)

    async def drain(self, timeout_s: float) -> int:
        """Stop listening and wait for open requests; return how many were cut off.

        Those that generate are told so, as an error of theirs.
        """
        self._service.is_draining = True
        if self._site is not None:
            await self._site.stop()
        num_cut_off = 0
        if not await self._is_idle_within(timeout_s):
            num_cut_off = self._service.num_open
            _log.warning("event=cut_off requests=%d", num_cut_off)
            self._engine.cut_off("Server error: the server is shutting down")
            await self._is_idle_within(_LAST_WORDS_S)
        await self.close()
        return num_cut_off

    async def _is_idle_within(self, timeout_s: float) -> bool:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                await self._service.wait_idle()
                return True
        return False

    async def close(self) -> None:
        await self._runner.cleanup()
        if self._metrics_runner is not None:
            await self._metrics_runner.cleanup()
        await self._service.close()
