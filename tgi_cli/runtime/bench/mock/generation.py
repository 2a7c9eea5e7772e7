"""Answer one request for text: wait for a slot, keep the pace, fail as planned, put it all down."""

from __future__ import annotations

import asyncio
import random
import time

import msgspec

from tgi_cli.runtime.bench.mock.asking import Ask, Refused, read_ask
from tgi_cli.runtime.bench.mock.clock import WorkClock
from tgi_cli.runtime.bench.mock.connection import (
    STREAM_END,
    STREAM_HEAD,
    Connection,
    HttpRequest,
    chunk,
    whole_reply,
)
from tgi_cli.runtime.bench.mock.counting import Counter, PrefixMemory
from tgi_cli.runtime.bench.mock.dialects import FORMS, Answer, OpenAiForm, TgiForm
from tgi_cli.runtime.bench.mock.faults import pick_fault
from tgi_cli.runtime.bench.mock.script import Write, script
from tgi_cli.runtime.bench.mock.slots import QueueFull, Slots
from tgi_cli.runtime.bench.mock.write_log import WriteLog, WrittenRequest
from tgi_cli.runtime.config.mock import Dialect, Fault, FaultKind, MockOptions, Usage


class Generator:
    """The part of the mock that makes text."""

    def __init__(self, options: MockOptions, counter: Counter) -> None:
        self._options = options
        self._counter = counter
        self._clock = WorkClock(options.freeze)
        self._log = WriteLog(options.log_file)
        self.slots = Slots(options.num_slots, options.max_queue)
        self.prefixes = PrefixMemory() if options.caches_prefixes else None
        self.num_requests = 0
        self.num_ok = 0
        self.queue_s = 0.0  # of all requests that got a slot

    async def thawed(self) -> None:
        """Wait until the mock isn't frozen."""
        await self._clock.thawed()

    def close(self) -> None:
        self._log.close()

    async def answer(
        self, dialect: Dialect, request: HttpRequest, connection: Connection, *, streams: bool
    ) -> None:
        """Answer a request for text."""
        index, self.num_requests = self.num_requests, self.num_requests + 1
        self._clock.request_came()
        entry = WrittenRequest(index=index, path=request.path, received=request.received_ns)
        fault = pick_fault(self._options.faults, self._options.num_spared, index)
        form = FORMS[dialect]
        try:
            await self._clock.thawed()
            if fault is not None and fault.kind == "hang":
                entry.outcome = "hang"
                await asyncio.Event().wait()  # until the client leaves
            if fault is not None and fault.kind == "status":
                entry.outcome = "status"
                self._refuse(connection, entry, form, fault.status, "the mock refuses as asked")
                return
            try:
                ask = read_ask(
                    dialect,
                    request.body,
                    streams=streams,
                    options=self._options,
                    counter=self._counter,
                    index=index,
                )
            except Refused as exc:
                entry.outcome = "refused"
                self._refuse(connection, entry, form, 422 if dialect == "tgi" else 400, str(exc))
                return
            try:
                async with self.slots.slot():
                    await self._work(form, ask, fault, connection, entry)
            except QueueFull:
                entry.outcome = "overloaded"
                self._refuse(connection, entry, form, 429, "Model is overloaded")
        except (ConnectionError, asyncio.CancelledError):
            if entry.outcome == "ok":
                entry.outcome = "gone"
            raise
        finally:
            self.num_ok += entry.outcome in ("ok", "stall")
            self._log.add(entry)

    def _refuse(
        self,
        connection: Connection,
        entry: WrittenRequest,
        form: TgiForm | OpenAiForm,
        status: int,
        message: str,
    ) -> None:
        headers: tuple[tuple[str, str], ...] = ()
        if status in (429, 503) and self._options.retry_after_s is not None:
            headers = (("retry-after", f"{self._options.retry_after_s:g}"),)
        kind = "overloaded" if status == 429 else "validation"
        body = msgspec.json.encode(form.error(message, kind))
        entry.status = status
        entry.headers = entry.ended = connection.send(whole_reply(status, body, headers))

    async def _work(
        self,
        form: TgiForm | OpenAiForm,
        ask: Ask,
        fault: Fault | None,
        connection: Connection,
        entry: WrittenRequest,
    ) -> None:
        entry.started = time.perf_counter_ns()
        queue_s = (entry.started - entry.received) / 1e9
        self.queue_s += queue_s
        answer = self._answer(form, ask, is_empty=fault is not None and fault.kind == "empty")
        entry.input_tokens = answer.input_tokens
        pace = Pace(self._options, self._clock, entry.index)
        if fault is not None:
            entry.outcome = fault.kind
        if ask.streams:
            await self._stream(form, answer, fault, pace, connection, entry)
        else:
            await self._reply(form, answer, fault, pace, connection, entry, queue_s)

    def _answer(self, form: TgiForm | OpenAiForm, ask: Ask, *, is_empty: bool) -> Answer:
        options = self._options
        usage: Usage = options.usage
        if ask.streams and not (isinstance(form, TgiForm) or ask.wants_usage):
            usage = "none"
        elif usage == "continuous" and not ask.wants_continuous_usage:
            usage = "final"
        cached = self.prefixes.look_up(ask.input_units) if self.prefixes is not None else None
        return Answer(
            model_id=options.model_id,
            input_tokens=len(ask.input_units),
            cached_tokens=cached,
            num_tokens=0 if is_empty else ask.num_output_tokens,
            ends_by_itself=ask.ends_by_itself,
            usage=usage,
            usage_offset=options.usage_offset,
            sends_token_ids=options.sends_token_ids,
            num_reasoning_tokens=options.num_reasoning_tokens,
            has_role_event=options.has_role_event,
            has_details=ask.wants_details,
        )

    async def _stream(
        self,
        form: TgiForm | OpenAiForm,
        answer: Answer,
        fault: Fault | None,
        pace: Pace,
        connection: Connection,
        entry: WrittenRequest,
    ) -> None:
        kind: FaultKind | None = fault.kind if fault is not None else None
        entry.status = 200
        entry.headers = connection.send(STREAM_HEAD)
        stalls_at = answer.num_tokens // 2 if fault is not None and kind == "stall" else None
        for write in script(form, answer, self._options, kind):
            if write.waits_for is not None:
                if stalls_at is not None and write.waits_for >= stalls_at:
                    assert fault is not None
                    pace.pause(fault.pause_s)
                    stalls_at = None
                await pace.token_due(write.waits_for)
            await connection.writable()
            entry.ended = await self._send(write, connection, entry)
        if kind == "reset":
            connection.reset()
        elif kind == "cut":
            connection.close()
        else:
            end_of_body = connection.send(STREAM_END)
            if kind == "truncated":
                entry.ended = end_of_body

    async def _send(self, write: Write, connection: Connection, entry: WrittenRequest) -> int:
        """Send one write, in its pieces; return the moment of the last."""
        for piece in write.pieces[:-1]:
            connection.send(chunk(piece))
            await asyncio.sleep(self._options.split_gap_s)
        now = connection.send(chunk(write.pieces[-1]))
        if write.num_tokens:
            entry.writes.append(now)
            entry.tokens.append(write.num_tokens)
            entry.events.append(write.num_events)
            entry.output_tokens += write.num_tokens
        return now

    async def _reply(
        self,
        form: TgiForm | OpenAiForm,
        answer: Answer,
        fault: Fault | None,
        pace: Pace,
        connection: Connection,
        entry: WrittenRequest,
        queue_s: float,
    ) -> None:
        """Send a whole reply, when its last token would have come."""
        kind: FaultKind | None = fault.kind if fault is not None else None
        if fault is not None and kind == "stall":
            pace.pause(fault.pause_s)
        await pace.token_due(max(answer.num_tokens - 1, 0))
        if kind == "error-event":
            self._refuse(connection, entry, form, 500, "the mock fails as asked")
            return
        body = form.whole(answer) if kind != "garbage" else b'{"choices": [{'
        headers = (("x-queue-time", f"{queue_s * 1e3:.0f}"),)
        reply = whole_reply(200, body, headers)
        entry.status = 200
        if kind in ("truncated", "cut", "reset"):
            entry.headers = connection.send(reply[: len(reply) - len(body) // 2 - 1])
            connection.reset() if kind == "reset" else connection.close()
            return
        entry.headers = entry.ended = connection.send(reply)
        entry.output_tokens = answer.num_tokens


class Pace:
    """When the tokens of one answer are due, in work time from its start."""

    def __init__(self, options: MockOptions, clock: WorkClock, index: int) -> None:
        self._clock = clock
        self._is_null = options.is_null
        self._itl_s = options.itl_s
        self._rng = random.Random(f"{options.seed}:pace:{index}")
        self._position = 0
        self._due_s = 0.0 if self._is_null else options.ttft_s.draw(self._rng)
        self._start = clock.now()

    async def token_due(self, position: int) -> None:
        """Wait for the token at `position`."""
        if self._is_null:
            await asyncio.sleep(0)  # let the other streams write in between
            return
        await self._clock.sleep_until(self._start + round(self.due_s(position) * 1e9))

    def due_s(self, position: int) -> float:
        """Return when the token at `position` is due; positions are asked for in order."""
        while self._position < position:
            self._due_s += self._itl_s.draw(self._rng)
            self._position += 1
        return self._due_s

    def pause(self, pause_s: float) -> None:
        """Put off all tokens that are still to come."""
        self._due_s += pause_s
