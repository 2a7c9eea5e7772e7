"""SIGTERM and SIGINT as events: the first asks for a graceful stop, the second for one now."""

from __future__ import annotations

import asyncio
import logging
import signal

_log = logging.getLogger(__name__)


class StopSignals:
    def __init__(self) -> None:
        self.graceful = asyncio.Event()
        self.now = asyncio.Event()

    def install(self) -> None:
        """Take over both signals for the running loop."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self.receive)

    def receive(self) -> None:
        if not self.graceful.is_set():
            _log.info("signal received, starting graceful shutdown")
            self.graceful.set()
        elif not self.now.is_set():
            _log.warning("second signal received, ending now")
            self.now.set()
