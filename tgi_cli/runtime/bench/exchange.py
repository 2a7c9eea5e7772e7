"""One request, from the gate to its end: stamps, deliveries, and the class of what went wrong.

This is the hot loop. A read is stamped before anything looks at it, events are parsed once, and
nothing is printed, locked or sent to another process. Spec: bench.md sections 2 and 10.
"""

from __future__ import annotations

import asyncio
from array import array
from collections.abc import Callable

import msgspec

from tgi_cli.runtime.bench.counting import PackedDeliveries
from tgi_cli.runtime.bench.failures import (
    WHY_HUNG_UP,
    class_of_status,
    failure_of,
    retry_after_s,
)
from tgi_cli.runtime.bench.messages import FinishedRequest, Timeouts
from tgi_cli.runtime.bench.protocols import Protocol, Reading
from tgi_cli.runtime.bench.records import Failure, RequestRecord
from tgi_cli.runtime.bench.sse import EventSplitter
from tgi_cli.runtime.bench.tally import Tally
from tgi_cli.runtime.bench.transport import Reply, Transport

_SWEEP_S = 0.05
_END_OF_BODY_NS = 1_000_000_000  # after the end mark; then the connection is given up
_MAX_MESSAGE_CHARS = 500
_NS = 1_000_000_000


class Exchange:
    """What is kept of a request while it is open."""

    __slots__ = (
        "at",
        "cause",
        "deadline",
        "num_events",
        "num_ids",
        "pieces",
        "reading",
        "record",
        "reply",
        "task",
        "text_ends",
        "text_size",
        "usage",
    )

    def __init__(self, record: RequestRecord, task: asyncio.Task[object]) -> None:
        self.record = record
        self.reading = Reading()
        self.task = task
        self.reply: Reply | None = None
        self.cause: Failure | None = None  # why it was hung up on
        self.deadline: int | None = None
        self.at = array("q")
        self.num_events = array("i")
        self.num_ids = array("i")
        self.usage = array("i")
        self.text_ends = array("i")
        self.pieces: list[str] = []
        self.text_size = 0

    def hang_up(self, cause: Failure) -> None:
        """End it from outside; it is recorded as `cause` unless its end mark is in."""
        if self.cause is None:
            self.cause = cause
            self.task.cancel()

    @property
    def text(self) -> str:
        return "".join(self.pieces)

    @property
    def answer(self) -> str:
        """What a later turn quotes: reasoning isn't part of it."""
        return self.text[self.reading.num_reasoning_chars :]

    def finished(self) -> FinishedRequest:
        """Return what is sent to the bench."""
        reading = self.reading
        deliveries = PackedDeliveries(
            at=self.at.tobytes(),
            num_events=self.num_events.tobytes(),
            num_ids=self.num_ids.tobytes(),
            usage=self.usage.tobytes(),
            text_ends=self.text_ends.tobytes(),
            text=self.text,
            total=reading.usage if reading.usage >= 0 else None,
        )
        return FinishedRequest(record=self.record, deliveries=deliveries)


class Exchanges:
    """Runs requests and watches over those that are open. `clock` gives ns from the run's start."""

    def __init__(
        self,
        transport: Transport,
        protocol: Protocol,
        timeouts: Timeouts,
        clock: Callable[[], int],
        *,
        streams: bool,
        num_retries_429: int = 0,
    ) -> None:
        self._transport = transport
        self._protocol = protocol
        self._timeouts = timeouts
        self._clock = clock
        self._streams = streams
        self._num_retries_429 = num_retries_429
        self.gate: asyncio.Semaphore | None = None  # --max-concurrency
        self.tally = Tally()
        self.open: set[Exchange] = set()
        self.done: list[Exchange] = []
        self._all_closed = asyncio.Event()

    async def run(
        self, body: bytes, record: RequestRecord, cancel_after_s: float | None = None
    ) -> Exchange:
        """Run one request to its end, good or bad; it always ends in `done`."""
        task = asyncio.current_task()
        assert task is not None
        exchange = Exchange(record, task)
        self.open.add(exchange)
        has_passed = False
        timer: asyncio.TimerHandle | None = None
        try:
            if self.gate is not None:
                await self.gate.acquire()
                has_passed = True
            record.gate = self._clock()
            if cancel_after_s is not None:
                loop = asyncio.get_running_loop()
                timer = loop.call_later(cancel_after_s, exchange.hang_up, "cancelled")
            self.tally.num_sent += 1
            await self._send(exchange, body)
        except asyncio.CancelledError:
            if exchange.cause is None:
                raise
            task.uncancel()
            if exchange.reply is not None:
                exchange.reply.hang_up()
            if record.end is None:
                self._fail(exchange, exchange.cause, WHY_HUNG_UP[exchange.cause])
        except Exception as exc:
            if exchange.reply is not None:
                exchange.reply.hang_up()
            self._fail(exchange, *failure_of(exc))
        finally:
            if timer is not None:
                timer.cancel()
            if has_passed and self.gate is not None:
                self.gate.release()
            self._close(exchange)
        return exchange

    async def _send(self, exchange: Exchange, body: bytes) -> None:
        record = exchange.record
        while True:
            self._set_deadline(exchange, self._clock(), self._timeouts.first_token_s)
            reply = exchange.reply = await self._transport.post(body, record)
            record.status = reply.status
            if reply.status == 200:
                await (self._read_stream if self._streams else self._read_whole)(exchange, reply)
                return
            text = (await reply.read_all()).decode("utf-8", "replace")
            if reply.status != 429 or record.num_retries >= self._num_retries_429:
                self._fail(exchange, class_of_status(reply.status), text)
                return
            record.num_retries += 1
            await asyncio.sleep(retry_after_s(reply.headers.get("retry-after")))

    async def _read_stream(self, exchange: Exchange, reply: Reply) -> None:
        record, reading, clock = exchange.record, exchange.reading, self._clock
        splitter = EventSplitter()
        num_bytes = 0
        if self._timeouts.first_token_s is not None and record.sent is not None:
            self._set_deadline(exchange, record.sent, self._timeouts.first_token_s)
        try:
            while data := await reply.read():
                now = clock()
                num_bytes += len(data)
                if events := splitter.feed(data):
                    self._take(exchange, events, now)
                    if reading.error is not None:
                        reply.hang_up()
                        self._fail(exchange, "stream_error", reading.error)
                        return
                    if reading.has_ended and record.end is None:
                        record.end = now
                        exchange.deadline = now + _END_OF_BODY_NS
            now = clock()
            if events := splitter.finish():
                self._take(exchange, events, now)
        except (ValueError, msgspec.DecodeError) as exc:
            reply.hang_up()
            self._fail(exchange, "protocol", str(exc))
            return
        reply.release()
        if record.end is None:
            if reading.finish_reason is None and not reading.has_ended:
                is_stream = "event-stream" in reply.content_type or not num_bytes
                self._fail(
                    exchange,
                    "truncated" if is_stream else "protocol",
                    "the stream ended without an end mark"
                    if is_stream
                    else f"not a stream of events but {reply.content_type or 'no type'}",
                )
                return
            record.end = now
        self._judge(exchange)

    async def _read_whole(self, exchange: Exchange, reply: Reply) -> None:
        body = await reply.read_all()
        now = self._clock()
        reading, record = exchange.reading, exchange.record
        try:
            self._protocol.read_whole(body, reading)
        except msgspec.DecodeError as exc:
            self._fail(exchange, "protocol", str(exc))
            return
        if reading.error is not None:
            self._fail(exchange, "stream_error", reading.error)
            return
        if not reading.has_ended:
            self._fail(exchange, "truncated", "no finish reason")
            return
        if reading.has_text or reading.text:
            self._deliver(exchange, now, 1, 0)
        record.end = now
        queued = reply.headers.get("x-queue-time", "")
        if queued.replace(".", "", 1).isdigit():
            record.server_queue_s = float(queued) / 1e3
        self._judge(exchange)

    def _take(self, exchange: Exchange, events: list[bytes], now: int) -> None:
        reading = exchange.reading
        read = self._protocol.read
        num_ids = reading.num_ids
        num_events = 0
        for event in events:
            if read(event, reading):
                num_events += 1
        if num_events:
            self._deliver(exchange, now, num_events, reading.num_ids - num_ids)

    def _deliver(self, exchange: Exchange, now: int, num_events: int, num_ids: int) -> None:
        record, reading, tally = exchange.record, exchange.reading, self.tally
        if record.first is None:
            record.first = now
            tally.count(tally.ttft, now - record.sched)
        elif record.last is not None:
            tally.count(tally.itl, (now - record.last) / (num_ids or num_events))
        if record.first_content is None and reading.has_content:
            record.first_content = now
        record.last = now
        tally.num_tokens += num_ids or num_events
        tally.num_deliveries += 1
        exchange.at.append(now)
        exchange.num_events.append(num_events)
        exchange.num_ids.append(num_ids)
        exchange.usage.append(reading.usage)
        for piece in reading.text:
            exchange.pieces.append(piece)
            exchange.text_size += len(piece)
        reading.text.clear()
        exchange.text_ends.append(exchange.text_size)
        self._set_deadline(exchange, now, self._timeouts.idle_s)

    def _set_deadline(self, exchange: Exchange, now: int, seconds: float | None) -> None:
        exchange.deadline = None if seconds is None else now + int(seconds * _NS)

    def _judge(self, exchange: Exchange) -> None:
        """Look at a reply that came to its end: without a token it is a failure."""
        record, reading = exchange.record, exchange.reading
        if not exchange.at and reading.usage > 0 and record.end is not None:
            self._deliver(exchange, record.end, 1, 0)  # tokens that have no text
        if not exchange.at:
            self._fail(exchange, "empty", "the reply holds no token")

    def _fail(self, exchange: Exchange, failure: Failure, message: str) -> None:
        exchange.record.failure = failure
        exchange.record.message = message[:_MAX_MESSAGE_CHARS]

    def _close(self, exchange: Exchange) -> None:
        self.open.discard(exchange)
        if not self.open:
            self._all_closed.set()
        record, reading = exchange.record, exchange.reading
        if record.end is None and record.failure not in ("unfinished", "dropped"):
            record.end = self._clock()
        record.num_events = sum(exchange.num_events)
        record.finish_reason = reading.finish_reason
        record.input_tokens = reading.input_tokens
        record.cached_tokens = reading.cached_tokens
        if reading.queue_s is not None:
            record.server_queue_s = reading.queue_s
        if record.failure is None:
            assert record.end is not None, record
            self.tally.well(record.end - record.sched, record.input_tokens or 0)
        else:
            record.message = self.tally.failed(record.failure, record.message)
        exchange.pieces = ["".join(exchange.pieces)]
        self.done.append(exchange)

    async def finish_all(self) -> None:
        """Hang up on everything that is open, each in its class; return when all are closed."""
        for exchange in tuple(self.open):
            if exchange.record.phase != "measure":
                exchange.hang_up("cancelled")
            else:
                exchange.hang_up("dropped" if exchange.record.gate is None else "unfinished")
        if self.open:
            self._all_closed.clear()
            await self._all_closed.wait()

    async def watch_deadlines(self) -> None:
        """Hang up on those whose time is over. Runs for ever."""
        total_s = self._timeouts.total_s
        total = None if total_s is None else int(total_s * _NS)
        while True:
            await asyncio.sleep(_SWEEP_S)
            now = self._clock()
            for exchange in tuple(self.open):
                gate = exchange.record.gate
                if gate is None:
                    continue
                if total is not None and now > gate + total:
                    exchange.hang_up("total_timeout")
                elif exchange.deadline is not None and now > exchange.deadline:
                    is_first = exchange.record.first is None
                    exchange.hang_up("first_token_timeout" if is_first else "idle_timeout")
