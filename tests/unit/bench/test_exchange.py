"""One request against servers that are honest, lie, break off or hang."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from tests.builders.endpoint import (
    END,
    HEAD,
    RESET,
    Answer,
    answering_with,
    chat,
    chunk,
    event,
    said,
    status,
)
from tgi_cli.runtime.bench.exchange import Exchange, Exchanges
from tgi_cli.runtime.bench.failures import retry_after_s
from tgi_cli.runtime.bench.messages import Timeouts
from tgi_cli.runtime.bench.protocols import PROTOCOLS, BodyOptions, ProtocolName
from tgi_cli.runtime.bench.records import RequestRecord
from tgi_cli.runtime.bench.stages import PromptInput
from tgi_cli.runtime.bench.transport import Transport, TransportOptions


@asynccontextmanager
async def client_of(
    url: str,
    protocol: ProtocolName = "chat",
    *,
    streams: bool = True,
    timeouts: Timeouts | None = None,
    num_retries_429: int = 0,
) -> AsyncIterator[Exchanges]:
    clock = time.perf_counter_ns
    spoken = PROTOCOLS[protocol](BodyOptions(streams=streams))
    transport = Transport(TransportOptions(url=url + spoken.path, connect_timeout_s=5), clock)
    exchanges = Exchanges(
        transport,
        spoken,
        timeouts or Timeouts(),
        clock,
        streams=streams,
        num_retries_429=num_retries_429,
    )
    watch = asyncio.create_task(exchanges.watch_deadlines())
    try:
        yield exchanges
    finally:
        watch.cancel()
        await asyncio.gather(watch, return_exceptions=True)
        await transport.close()


async def run_one(exchanges: Exchanges, cancel_after_s: float | None = None) -> Exchange:
    record = RequestRecord(index=0, phase="measure", sched=time.perf_counter_ns())
    body = exchanges._protocol.body(PromptInput(text="x"), 5)
    return await exchanges.run(body, record, cancel_after_s)


async def ask(answer: Answer, **options: Any) -> Exchange:
    async with answering_with(answer) as endpoint, client_of(endpoint.url, **options) as client:
        return await run_one(client)


async def test_stamps_follow_one_another_and_a_role_is_no_token() -> None:
    exchange = await ask(chat("a", "b", "c", usage=3))

    record = exchange.record
    assert record.is_ok
    stamps = (record.sched, record.gate, record.conn, record.sent, record.headers, record.first)
    assert list(stamps) == sorted(stamps)  # type: ignore[type-var]
    assert (record.first, record.last) == (exchange.at[0], exchange.at[-1])
    assert record.num_events == 3
    assert exchange.text == "abc"
    assert record.end is not None
    assert record.last is not None
    assert record.end >= record.last
    assert (record.input_tokens, record.finish_reason) == (7, "stop")


async def test_events_of_one_read_are_one_delivery() -> None:
    together = chunk(b"".join(b'data: {"choices":[{"delta":{"content":"x"}}]}\n\n' for _ in "123"))

    exchange = await ask([HEAD, together, event(said("y", "stop")), event("[DONE]"), END])

    assert list(exchange.num_events) == [3, 1]
    assert list(exchange.text_ends) == [3, 4]


async def test_reasoning_is_output_but_not_content() -> None:
    thought = {"choices": [{"delta": {"reasoning_content": "hm"}}]}

    exchange = await ask([HEAD, event(thought), event(said("yes", "stop")), event("[DONE]"), END])

    assert exchange.record.first == exchange.at[0]
    assert exchange.record.first_content == exchange.at[1]
    assert exchange.answer == "yes"


async def test_a_grown_count_makes_an_empty_event_a_token() -> None:
    events = [
        {"choices": [{"delta": {"content": text}}], "usage": {"completion_tokens": count}}
        for text, count in (("", 0), ("", 1), ("a", 2))
    ]

    exchange = await ask([HEAD, *map(event, events), event(said("", "stop")), event("[DONE]"), END])

    assert list(exchange.usage) == [1, 2]


async def test_every_token_event_of_tgi_is_a_token_empty_or_not() -> None:
    tokens = [{"token": {"id": i, "text": text}} for i, text in enumerate(("a", "", "b"))]
    last = tokens[-1] | {
        "generated_text": "ab",
        "details": {"finish_reason": "length", "generated_tokens": 3, "input_length": 4},
    }

    exchange = await ask([HEAD, *map(event, [*tokens[:2], last]), END], protocol="tgi")

    assert exchange.record.is_ok
    assert list(exchange.num_ids) == [1, 1, 1]
    assert exchange.record.input_tokens == 4


@pytest.mark.parametrize(
    ("answer", "failure"),
    [
        (status(400, '{"error":"bad"}'), "http_4xx"),
        (status(429), "http_429"),
        (status(503), "http_5xx"),
        (status(302), "protocol"),
        ([HEAD, event(said("a")), END], "truncated"),
        ([HEAD, event(said("a")), chunk(b'data: {"cho')], "truncated"),
        ([HEAD, END], "truncated"),
        ([HEAD, event(said("a")), event({"error": {"message": "boom"}}), END], "stream_error"),
        ([HEAD, event({"error": "boom", "error_type": "generation"}), END], "stream_error"),
        ([HEAD, event("nonsense"), END], "protocol"),
        ([HEAD, event({"choices": 5}), END], "protocol"),
        (status(200, "<html>", "Content-Type: text/html"), "protocol"),
        ([b"what is this\r\n\r\n"], "protocol"),
        (chat(), "empty"),
        ([HEAD, event(said("a")), RESET], "reset"),
        ([RESET], "reset"),
    ],
    ids=str,
)
async def test_each_failure_is_in_its_class(answer: Answer, failure: str) -> None:
    exchange = await ask(answer)

    record = exchange.record
    assert record.failure == failure
    assert record.message
    assert record.end is not None


async def test_a_port_without_a_listener_refuses() -> None:
    async with client_of("http://127.0.0.1:9") as client:
        exchange = await run_one(client)

    assert exchange.record.failure == "refused"


async def test_a_name_that_nobody_has_is_a_failure_of_dns() -> None:
    async with client_of("http://no-such-host.invalid") as client:
        exchange = await run_one(client)

    assert exchange.record.failure == "dns"


async def test_tls_to_a_plain_server_fails_as_tls() -> None:
    async def answer(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        writer.close()

    async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        async with client_of(f"https://127.0.0.1:{port}") as client:
            exchange = await run_one(client)

    assert exchange.record.failure == "tls"


@pytest.mark.parametrize(
    ("parts", "timeouts", "failure"),
    [
        ([], Timeouts(first_token_s=0.05), "first_token_timeout"),
        ([HEAD], Timeouts(first_token_s=0.05), "first_token_timeout"),
        ([HEAD, event(said("a"))], Timeouts(idle_s=0.05), "idle_timeout"),
        ([HEAD, event(said("a"))], Timeouts(total_s=0.05), "total_timeout"),
    ],
)
async def test_a_server_that_hangs_is_given_up(
    parts: list[bytes], timeouts: Timeouts, failure: str
) -> None:
    never = asyncio.Event()

    exchange = await ask([*parts, never], timeouts=timeouts)

    assert exchange.record.failure == failure


async def test_an_end_mark_counts_though_the_body_stays_open() -> None:
    never = asyncio.Event()
    whole = [HEAD, event(said("a", "stop")), event("[DONE]"), never]

    exchange = await ask(whole, timeouts=Timeouts(idle_s=0.05))

    assert exchange.record.is_ok


async def test_a_hang_up_on_purpose_is_no_failure_of_the_server() -> None:
    never = asyncio.Event()
    async with (
        answering_with([HEAD, event(said("a")), never]) as endpoint,
        client_of(endpoint.url) as client,
    ):
        exchange = await run_one(client, cancel_after_s=0.05)

    assert exchange.record.failure == "cancelled"
    assert exchange.text == "a"


async def test_a_refused_request_is_tried_again_as_often_as_allowed() -> None:
    def answer(number: int, _path: str, _body: object) -> Answer:
        return status(429, "full", "Retry-After: 0") if number < 2 else chat("a")

    async with (
        answering_with(answer) as endpoint,
        client_of(endpoint.url, num_retries_429=2) as client,
    ):
        exchange = await run_one(client)

    assert exchange.record.is_ok
    assert exchange.record.num_retries == 2


async def test_only_the_first_message_of_a_class_is_kept() -> None:
    async with (
        answering_with(status(500, "secret of the house")) as endpoint,
        client_of(endpoint.url) as client,
    ):
        first, second = await run_one(client), await run_one(client)

    assert first.record.message == "secret of the house"
    assert second.record.message is None


async def test_connections_are_reused() -> None:
    async with answering_with(chat("a")) as endpoint, client_of(endpoint.url) as client:
        first, second = await run_one(client), await run_one(client)

    assert (first.record.conn_reused, second.record.conn_reused) == (False, True)
    assert endpoint.num_connections == 1


async def test_a_reply_as_a_whole_is_one_delivery() -> None:
    answer = (
        '{"choices":[{"message":{"content":"ab"},"finish_reason":"stop"}],'
        '"usage":{"prompt_tokens":3,"completion_tokens":2}}'
    )

    exchange = await ask(status(200, answer, "x-queue-time: 12"), streams=False)

    record = exchange.record
    assert record.is_ok
    assert (exchange.text, list(exchange.num_events)) == ("ab", [1])
    assert record.server_queue_s == 0.012


@pytest.mark.parametrize(
    ("header", "expected"),
    [(None, 1.0), ("3", 3.0), ("-1", 0.0), ("1e9", 60.0), ("nan", 1.0), ("soon", 1.0)],
)
def test_retry_after_is_bounded(header: str | None, expected: float) -> None:
    assert retry_after_s(header) == expected


async def test_the_drain_tells_what_was_sent_from_what_waited() -> None:
    never = asyncio.Event()
    async with (
        answering_with([HEAD, event(said("a")), never]) as endpoint,
        client_of(endpoint.url) as client,
    ):
        client.gate = asyncio.Semaphore(1)
        tasks = [asyncio.create_task(run_one(client)) for _ in range(3)]
        await endpoint.was_asked.wait()
        await client.finish_all()
        ended = [(await task).record for task in tasks]

    assert [record.failure for record in ended] == ["unfinished", "dropped", "dropped"]
    assert all(record.end is None for record in ended)
