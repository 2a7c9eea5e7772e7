"""A process for work that may run for ever or eat all memory, since no thread can be stopped.

The parent sends a frame and gets one back; a worker that passes the time limit is killed, and the
next question starts a new one. A frame is its length in 4 bytes, little endian, then the payload.
The worker's side is `frames` and `send_frame`, on its standard streams.
"""

from __future__ import annotations

import asyncio
import os
import struct
import sys
from collections.abc import Iterator
from typing import BinaryIO

from tgi_cli.errors import WorkerUnavailable

_LENGTH = struct.Struct("<I")
_START_TIME_LIMIT_S = 30.0
# Nothing of the environment but what Python needs: secrets stay out of a worker.
_KEPT_VARIABLES = ("PATH", "PYTHONPATH", "LD_LIBRARY_PATH", "TZ", "VIRTUAL_ENV")


class WorkerEnded(Exception):
    """The worker died over a question, of the memory limit perhaps."""


class WorkerProcess:
    """`python -m module`, one question at a time."""

    def __init__(self, module: str, greeting: bytes, time_limit_s: float) -> None:
        self._module = module
        self._greeting = greeting  # the first question to each new worker
        self._time_limit_s = time_limit_s
        self._process: asyncio.subprocess.Process | None = None
        self._lock = asyncio.Lock()

    async def start(self) -> bytes:
        """Start a worker and return its answer to the greeting.

        Raises:
            WorkerUnavailable: it doesn't come up.
        """
        async with self._lock:
            return await self._start()

    async def ask(self, payload: bytes) -> bytes:
        """Return the worker's answer.

        Raises:
            TimeoutError: it took too long, and was killed.
            WorkerEnded: it died.
            WorkerUnavailable: there was none, and a new one doesn't come up.
        """
        async with self._lock:
            if self._process is None or self._process.returncode is not None:
                await self._start()
            return await self._exchange(payload, self._time_limit_s)

    async def close(self) -> None:
        process, self._process = self._process, None
        if process is not None and process.returncode is None:
            process.kill()
            await process.wait()

    async def _start(self) -> bytes:
        try:
            self._process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-P",  # the current folder may be a model's: import nothing from it
                *("-m", self._module),
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                env={name: os.environ[name] for name in _KEPT_VARIABLES if name in os.environ},
                start_new_session=True,
                limit=1 << 26,
            )
            # The answer proves that it is up, so that starting doesn't count as working.
            return await self._exchange(self._greeting, _START_TIME_LIMIT_S)
        except (WorkerEnded, OSError) as exc:
            raise WorkerUnavailable(
                f"The process {self._module.rpartition('.')[2]} doesn't start.",
                hint="It needs memory and processes: see the container's limits.",
            ) from exc

    async def _exchange(self, payload: bytes, time_limit_s: float) -> bytes:
        process = self._process
        assert process is not None
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            async with asyncio.timeout(time_limit_s):
                process.stdin.write(_LENGTH.pack(len(payload)) + payload)
                await process.stdin.drain()
                (length,) = _LENGTH.unpack(await process.stdout.readexactly(_LENGTH.size))
                return await process.stdout.readexactly(length)
        except TimeoutError:
            raise
        except (asyncio.IncompleteReadError, OSError) as exc:
            raise WorkerEnded from exc
        finally:
            # Whatever was cut off half-way, be it by us or by the caller, leaves the pipe unusable.
            if sys.exc_info()[0] is not None:
                await self.close()


def frames(source: BinaryIO) -> Iterator[bytes]:
    """Yield the parent's questions until it is gone."""
    while header := source.read(_LENGTH.size):
        yield source.read(_LENGTH.unpack(header)[0])


def send_frame(sink: BinaryIO, payload: bytes) -> None:
    sink.write(_LENGTH.pack(len(payload)) + payload)
    sink.flush()
