"""The worker processes, seen from the bench: start them, talk to them, keep what they hand back."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import msgspec

from tgi_cli.runtime.bench.messages import (
    Crashed,
    Done,
    Finished,
    FinishedRequest,
    Opened,
    SetUp,
    Tick,
    ToWorker,
    receive_from_worker,
    send,
)

_EXIT_S = 5.0
_MODULE = "tgi_cli.runtime.bench.worker"


class WorkerDied(Exception):
    """A worker ended on its own; the message says what it said last."""


@dataclass
class WorkerProcess:
    """One worker. `on_change` is called whenever it has said something."""

    process: asyncio.subprocess.Process
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    on_change: Callable[[], None]
    on_finished: Callable[[list[FinishedRequest]], None]
    tick: Tick | None = None
    new_ticks: list[Tick] = field(default_factory=list)
    is_open: bool = False
    done: Done | None = None
    death: str | None = None
    listener: asyncio.Task[None] | None = None

    async def listen(self) -> None:
        """Keep what the worker says, until it ends."""
        try:
            await self._keep()
        except msgspec.DecodeError as exc:
            self.death = self.death or f"a worker process says what nobody understands: {exc}"
        self.death = self.death or "a worker process ended by itself"
        self.on_change()

    async def _keep(self) -> None:
        while (message := await receive_from_worker(self.reader)) is not None:
            match message:
                case Tick():
                    self.tick = message
                    self.new_ticks.append(message)
                case Opened():
                    self.is_open = True
                case Finished():
                    self.on_finished(message.requests)
                case Done():
                    self.done = message
                case Crashed():
                    self.death = self.death or message.message
            self.on_change()


class WorkerPool:
    """All workers of a run. Use `start` and `close`; `origin` is the run's start."""

    def __init__(self, set_up: SetUp, num_workers: int) -> None:
        self._set_up = set_up
        self._num_workers = num_workers
        self.workers: list[WorkerProcess] = []
        self.finished: list[FinishedRequest] = []
        self.changed = asyncio.Event()

    def now(self) -> int:
        """Return ns from the run's start."""
        return time.perf_counter_ns() - self._set_up.origin

    async def start(self) -> None:
        """Start the processes; they import and connect while the plan is made."""
        for index in range(self._num_workers):
            ours, theirs = socket.socketpair()
            with theirs:
                process = await asyncio.create_subprocess_exec(
                    sys.executable,
                    "-P",  # import nothing from the folder we were started in
                    *("-m", _MODULE, str(theirs.fileno())),
                    stdin=asyncio.subprocess.DEVNULL,
                    stdout=asyncio.subprocess.DEVNULL,
                    pass_fds=(theirs.fileno(),),
                    start_new_session=True,  # Ctrl-C is for us: they end when we say so
                )
            reader, writer = await asyncio.open_connection(sock=ours)
            worker = WorkerProcess(process, reader, writer, self.changed.set, self.finished.extend)
            worker.listener = asyncio.create_task(worker.listen())
            self.workers.append(worker)
            send(
                writer,
                msgspec.structs.replace(self._set_up, worker=index, num_workers=self._num_workers),
            )

    def send(self, *messages: ToWorker) -> None:
        """Send each message to its worker, or a single one to all."""
        for worker, message in zip(
            self.workers,
            messages if len(messages) > 1 else messages * len(self.workers),
            strict=True,
        ):
            send(worker.writer, message)

    async def drain(self) -> None:
        """Wait until the workers have taken in what was sent."""
        for worker in self.workers:
            with contextlib.suppress(OSError):
                await worker.writer.drain()

    async def wait_for(
        self, is_so: Callable[[WorkerProcess], bool], timeout_s: float | None = None
    ) -> bool:
        """Wait until it is so for every worker; return false if the time was over first.

        Raises:
            WorkerDied: one of them ended.
        """
        deadline = None if timeout_s is None else time.monotonic() + timeout_s
        while True:
            self.changed.clear()
            self.check()
            if all(is_so(worker) for worker in self.workers):
                return True
            left_s = None if deadline is None else deadline - time.monotonic()
            if left_s is not None and left_s <= 0:
                return False
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self.changed.wait(), left_s)

    def check(self) -> None:
        """Raise `WorkerDied` if a worker has ended."""
        for worker in self.workers:
            if worker.death is not None:
                raise WorkerDied(worker.death)

    async def close(self) -> None:
        """Let the workers end; those that don't are killed."""
        for worker in self.workers:
            worker.writer.close()
            try:
                await asyncio.wait_for(worker.process.wait(), _EXIT_S)
            except TimeoutError:
                worker.process.kill()
                await worker.process.wait()
            if worker.listener is not None:
                worker.listener.cancel()
                await asyncio.gather(worker.listener, return_exceptions=True)
        self.workers.clear()
