"""The server's own metrics, read before, during and after a stage. Spec: bench.md section 14.

Series are summed over their labels. Buckets are left out: a mean is all that is made of a
histogram.
"""

from __future__ import annotations

import asyncio
import re
import time

import aiohttp

from tgi_cli.runtime.bench.transport import TransportOptions, tls_context

_EVERY_S = 5.0
_TIMEOUT_S = 5.0
_MAX_BYTES = 1 << 24
_MAX_SERIES = 500
_LINE = re.compile(r"([a-zA-Z_:][a-zA-Z0-9_:]*)(\{.*\})?\s+(\S+)(\s+\d+)?")
_OF_INTEREST = re.compile(r"(tgi|vllm|sglang|llamacpp|trtllm)[_:]")


def parse_metrics(text: str) -> dict[str, float]:
    """Return each series of an exposition, summed over its labels."""
    found: dict[str, float] = {}
    for line in text.splitlines():
        match = _LINE.fullmatch(line.strip())
        if match is None or match[1].endswith(("_bucket", "_created")):
            continue
        if not _OF_INTEREST.match(match[1]) or len(found) >= _MAX_SERIES:
            continue
        try:
            value = float(match[3])
        except ValueError:
            continue
        if value == value and abs(value) != float("inf"):
            found[match[1]] = found.get(match[1], 0.0) + value
    return found


class Scraper:
    """Reads one metrics page; a page that can't be read is as good as none."""

    def __init__(self, url: str | None, transport: TransportOptions) -> None:
        self._url = url
        self._transport = transport
        self._series: list[dict[str, float]] = []
        self._task: asyncio.Task[None] | None = None
        self._start = 0.0

    async def read(self) -> dict[str, float]:
        """Return the series as they are now; empty if there is no page."""
        if self._url is None:
            return {}
        try:
            async with (
                aiohttp.ClientSession(
                    connector=aiohttp.TCPConnector(ssl=tls_context(self._transport)),
                    headers=self._transport.headers,
                    timeout=aiohttp.ClientTimeout(total=_TIMEOUT_S),
                ) as session,
                session.get(self._url) as response,
            ):
                if response.status != 200:
                    return {}
                raw = await response.content.read(_MAX_BYTES)
        except (aiohttp.ClientError, TimeoutError, OSError):
            return {}
        return parse_metrics(raw.decode("utf-8", "replace"))

    def start(self) -> None:
        """Read every five seconds from now on."""
        self._series, self._start = [], time.monotonic()
        if self._url is not None:
            self._task = asyncio.create_task(self._read_on())

    async def stop(self) -> list[dict[str, float]]:
        """Return what was read since the start; `t` is seconds from it."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
            self._task = None
        return self._series

    async def _read_on(self) -> None:
        while True:
            await asyncio.sleep(_EVERY_S)
            at_s = time.monotonic() - self._start
            if found := await self.read():
                self._series.append({"t": at_s, **found})
