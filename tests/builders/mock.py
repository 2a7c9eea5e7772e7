"""`tgi bench mock`: inside the test's own loop, or as a process of its own."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any

from tgi_cli.runtime.bench.mock.server import MockServer
from tgi_cli.runtime.config.mock import MockOptions
from tgi_cli.runtime.config.spreads import constant


@asynccontextmanager
async def mock_server(**options: Any) -> AsyncIterator[str]:
    """Run a mock in this loop, quick unless told otherwise; yield its URL."""
    quick = {"ttft_s": constant(0.0), "itl_s": constant(0.0)}
    server = MockServer(MockOptions(**quick | options))
    url = await server.start()
    try:
        yield url
    finally:
        await server.close()


@contextmanager
def mock_process(*args: str) -> Iterator[str]:
    """Run `tgi bench mock` with these arguments on a free port; yield its URL."""
    process = subprocess.Popen(
        [sys.executable, "-m", "tgi_cli", "bench", "mock", "--port", "0", *args],
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        assert line.startswith("Listening on "), line
        yield line.removeprefix("Listening on ").rstrip("\n")
    finally:
        process.terminate()
        exit_code = process.wait(30)
        process.stdout.close()
    assert exit_code == 0
