"""The router's end of an engine's channel, on the event loop.

The router is the source of truth for a request: its record keeps the prompt's ids and every token
received, which is all that another engine would need to go on with it (DESIGN section 2). One
wake-up per read and request, however many tokens came. Writes never block: what the socket
doesn't take is buffered.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, cast

from tgi_cli.errors import START_ERRORS, EngineDiedError, GenerationError
from tgi_cli.runtime.ipc.channel import FrameSplitter, decode_from_engine, encode_frame
from tgi_cli.runtime.ipc.messages import (
    AbortRequest,
    EngineFailed,
    EngineReady,
    NewRequest,
    SequenceOutput,
    ShutDown,
    StartEngine,
    StepOutput,
)
from tgi_cli.runtime.types import FinishReason

if TYPE_CHECKING:
    import socket

StepListener = Callable[[StepOutput], None]
TakeOutputs = Callable[[list[SequenceOutput]], bool]


class OpenRequest:
    """A request that an engine works on: what was asked, and all that has come."""

    __slots__ = (
        "_error",
        "_pending",
        "_take",
        "_waiter",
        "finish_reason",
        "output_ids",
        "request",
        "started_ns",
    )

    def __init__(self, request: NewRequest) -> None:
        self.request = request
        self.output_ids: list[int] = []
        self.finish_reason: FinishReason | None = None
        self.started_ns = 0  # when the first step that worked on it began
        self._pending: list[SequenceOutput] = []
        self._error: GenerationError | None = None
        self._waiter: asyncio.Future[None] | None = None
        self._take: TakeOutputs | None = None

    async def next_outputs(self) -> list[SequenceOutput]:
        """Return what has come since the last call, waiting for at least one output.

        Raises:
            GenerationError: the engine dropped the request, or died.
        """
        if not self._pending and self._error is None:
            await self._wait()
        if self._pending:
            return self._take_pending()
        assert self._error is not None
        raise self._error

    async def push_to(self, take: TakeOutputs) -> None:
        """Call `take` with outputs as they come, until it returns false.

        It is called where the engine's message is read, with no task in between: at 100 streams
        the switches to 100 tasks were most of the last one's delay. So it must be short.

        Raises:
            GenerationError: as `next_outputs`.
            Exception: what `take` raised.
        """
        if self._pending and not take(self._take_pending()):
            return
        if self._error is not None:
            raise self._error
        self._take = take
        try:
            await self._wait()
        finally:
            self._take = None

    async def _wait(self) -> None:
        self._waiter = asyncio.get_running_loop().create_future()
        try:
            await self._waiter
        finally:
            self._waiter = None

    def _take_pending(self) -> list[SequenceOutput]:
        pending, self._pending = self._pending, []
        return pending

    def deliver(self, output: SequenceOutput) -> None:
        """Add an output; `wake` says that there is one."""
        self.output_ids += output.token_ids
        self.finish_reason = output.finish_reason
        self._pending.append(output)

    def fail(self, message: str) -> None:
        self._error = GenerationError(message)

    def wake(self) -> None:
        """Hand on what has come."""
        if self._waiter is None or self._waiter.done():
            return
        if self._take is not None and self._pending:
            try:
                wants_more = self._take(self._take_pending())
            except Exception as exc:
                self._waiter.set_exception(exc)
                return
            if not wants_more:
                self._waiter.set_result(None)
                return
        if self._take is None:
            self._waiter.set_result(None)
        elif self._error is not None:
            self._waiter.set_exception(self._error)


class EngineClient(asyncio.Protocol):
    """One engine. Make it with `connect`."""

    def __init__(self) -> None:
        self._splitter = FrameSplitter()
        self._transport: asyncio.Transport | None = None
        self._ready: asyncio.Future[EngineReady] = asyncio.get_running_loop().create_future()
        self._listeners: list[StepListener] = []
        self.closed = asyncio.Event()
        self.last_step_ns = 0  # when the newest step was reported; 0: never
        self.busy_since_ns = 0  # when it was given work after having had none
        self.num_blocks = 0  # of the engine's KV cache, once it is ready
        self.open_requests: dict[int, OpenRequest] = {}

    @classmethod
    async def connect(cls, sock: socket.socket) -> EngineClient:
        """Take over `sock`, a connected stream socket."""
        loop = asyncio.get_running_loop()
        _, client = await loop.create_connection(cls, sock=sock)
        return client

    def add_step_listener(self, listener: StepListener) -> None:
        self._listeners.append(listener)

    def start(self, config: bytes) -> None:
        """Send the engine its configuration, an `EngineConfig` in JSON."""
        self._send(StartEngine(config))

    async def wait_ready(self) -> EngineReady:
        """Return when the engine has answered its warm-up.

        Raises:
            StartError: of the kind that the engine reports; `EngineDiedError` if it just ended.
        """
        return await asyncio.shield(self._ready)

    def submit(self, request: NewRequest) -> OpenRequest:
        """Send a request. Raises `GenerationError` if there is no engine any more."""
        if self.closed.is_set():
            raise GenerationError("Server error: the engine isn't running")
        if not self.open_requests:
            self.busy_since_ns = time.monotonic_ns()
        record = self.open_requests[request.request_id] = OpenRequest(request)
        self._send(request)
        return record

    def abort(self, request_id: int) -> None:
        """Forget a request; one that has ended already is no longer known."""
        if self.open_requests.pop(request_id, None) is not None and not self.closed.is_set():
            self._send(AbortRequest(request_id))

    def cut_off(self, message: str) -> None:
        """End all open requests with an error, here and in the engine."""
        if not self.closed.is_set():
            for request_id in self.open_requests:
                self._send(AbortRequest(request_id))
        self._fail_all(message)

    def _fail_all(self, message: str) -> None:
        records = list(self.open_requests.values())
        self.open_requests.clear()
        for record in records:
            record.fail(message)
            record.wake()

    def shut_down(self) -> None:
        if not self.closed.is_set():
            self._send(ShutDown())

    def close(self) -> None:
        if self._transport is not None:
            self._transport.close()

    def _send(self, message: StartEngine | NewRequest | AbortRequest | ShutDown) -> None:
        assert self._transport is not None
        self._transport.write(encode_frame(message))

    # asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's is no subclass of it

    def data_received(self, data: bytes) -> None:
        touched: dict[int, OpenRequest] = {}
        for frame in self._splitter.feed(data):
            message = decode_from_engine(frame)
            if isinstance(message, StepOutput):
                self._dispatch(message, touched)
            elif isinstance(message, EngineReady):
                self.num_blocks = message.num_blocks
                self._ready.set_result(message)
            elif isinstance(message, EngineFailed):
                error = START_ERRORS[message.kind](message.message, hint=message.hint)
                self._ready.set_exception(error)
        for record in touched.values():
            record.wake()

    def connection_lost(self, exc: Exception | None) -> None:
        self.closed.set()
        if not self._ready.done():
            self._ready.set_exception(EngineDiedError("The engine ended before it was ready."))
            self._ready.exception()  # it may be that nobody waits for it any more
        self._fail_all("Server error: the engine ended")

    def _dispatch(self, step: StepOutput, touched: dict[int, OpenRequest]) -> None:
        """Give a step's outputs to their requests and put these into `touched`."""
        self.last_step_ns = time.monotonic_ns()
        records = self.open_requests
        for request_id in step.started:
            if (record := records.get(request_id)) is not None:
                record.started_ns = step.start_ns
        for output in step.outputs:
            record = records.get(output.request_id)
            if record is None:
                continue  # aborted meanwhile
            record.deliver(output)
            touched[output.request_id] = record
            if output.finish_reason is not None:
                del records[output.request_id]
        for failure in step.failures:
            record = records.pop(failure.request_id, None)
            if record is not None:
                record.fail(failure.message)
                touched[failure.request_id] = record
        for listener in self._listeners:
            listener(step)
