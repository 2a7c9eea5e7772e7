"""Permits, disconnects, draining and metrics: spec/scheduling.md 1 and 8, spec/metrics.md."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import Awaitable, Callable

import aiohttp
import pytest

from tests.builders.router import Client, ids_of, script_for, serving
from tgi_cli.runtime.router import streaming

SLOW = script_for("abc", step_s=0.002)
FOREVER = {"inputs": "x", "parameters": {"max_new_tokens": 5000}}
ROOMY = {"max_total_tokens": 6000}
GAUGES = (
    "kv_cache_blocks_used", "requests_running", "requests_waiting", "queue_size",
    "batch_current_size", "batch_current_max_tokens",
)  # fmt: skip


async def start_stream(client: Client) -> aiohttp.ClientResponse:
    """Return a stream that has brought its first event and will go on for long."""
    response = await client.session.post(f"{client.url}/generate_stream", json=FOREVER)
    await response.content.readuntil(b"\n\n")
    return response


async def until(condition: Callable[[], Awaitable[bool]]) -> None:
    """Wait for a state that follows from an event in another task or process."""
    async with asyncio.timeout(10):
        while not await condition():  # noqa: ASYNC110 - the event is the other side's
            await asyncio.sleep(0.005)


async def test_the_request_after_the_last_permit_is_refused_at_once():
    async with serving(SLOW, limits={"max_concurrent_requests": 2, **ROOMY}) as client:
        streams = [await start_stream(client) for _ in range(2)]
        status, _, reply = await client.post("/generate", {"inputs": ""})
        [event] = await client.stream("/generate_stream", {"inputs": "x"})
        refused = await client.metric('tgi_request_failure{err="overloaded"}')
        count = await client.metric("tgi_request_count")
        for stream in streams:
            stream.close()

    overloaded = {"error": "Model is overloaded", "error_type": "overloaded"}
    assert (status, reply) == (429, overloaded)
    assert event == overloaded
    assert (refused, count) == (2, 4)


async def test_a_client_that_goes_away_frees_its_permit_and_blocks():
    async with serving(SLOW, limits={"max_concurrent_requests": 1, **ROOMY}) as client:
        stream = await start_stream(client)
        assert client.engine.open_requests

        stream.close()

        async def is_free() -> bool:
            return not client.engine.open_requests

        await until(is_free)
        status, _, _ = await client.post(
            "/generate", {"inputs": "x", "parameters": {"max_new_tokens": 1}}
        )
        dropped = await client.metric('tgi_request_failure{err="dropped"}')
        succeeded = await client.metric("tgi_request_success")

    assert status == 200
    assert (dropped, succeeded) == (1, 1)


async def test_gauges_are_zero_at_rest_after_an_abort():
    async with serving(SLOW, limits=ROOMY) as client:
        stream = await start_stream(client)
        stream.close()

        async def is_at_rest() -> bool:
            gauges = ("kv_cache_blocks_used", "requests_running", "batch_current_max_tokens")
            return [await client.metric(f"tgi_{gauge}") for gauge in gauges] == [0, 0, 0]

        await until(is_at_rest)


async def test_a_client_that_goes_away_during_a_plain_reply_frees_its_permit_too():
    async with serving(SLOW, limits=ROOMY) as client:
        request = asyncio.create_task(client.post("/generate", FOREVER))

        async def is_running() -> bool:
            return bool(client.engine.open_requests)

        async def is_free() -> bool:
            return not client.engine.open_requests

        await until(is_running)
        request.cancel()

        await until(is_free)


async def test_a_client_that_reads_nothing_for_long_gets_everything_in_the_end(monkeypatch):
    held_up = asyncio.Event()
    write = streaming.EventStream.write

    async def note_and_write(stream: streaming.EventStream, frame: bytes) -> None:
        held_up.set()  # a stream whose client keeps up is only sent to
        await write(stream, frame)

    monkeypatch.setattr(streaming.EventStream, "write", note_and_write)
    num_tokens = 60_000
    limits = {"max_total_tokens": num_tokens + 10}
    async with serving(script_for("a"), limits=limits) as client:
        reader, writer = await _open_with_a_small_window(client)
        body = json.dumps({"inputs": "x", "parameters": {"max_new_tokens": num_tokens}})
        head = "POST /generate_stream HTTP/1.0\r\ncontent-type: application/json\r\n"
        writer.write(f"{head}content-length: {len(body)}\r\n\r\n{body}".encode())
        async with asyncio.timeout(30):
            await held_up.wait()
        _, _, other = await client.post("/generate", {"inputs": "x"})
        raw = await reader.read()
        writer.close()

    assert other["generated_text"]
    events = [frame for frame in raw.split(b"\n\n") if b"data: " in frame]
    assert len(events) == num_tokens
    assert f'"generated_text":"{"a" * num_tokens}"'.encode() in events[-1]


async def _open_with_a_small_window(
    client: Client,
) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    sock.connect(("127.0.0.1", int(client.url.rpartition(":")[2])))
    return await asyncio.open_connection(sock=sock, limit=1024)


async def test_an_idle_stream_is_kept_alive_by_comments(monkeypatch):
    monkeypatch.setattr(streaming, "KEEP_ALIVE_S", 0.02)
    async with serving(script_for("abc", step_s=0.2)) as client:
        body = {"inputs": "x", "parameters": {"max_new_tokens": 2}}
        async with client.session.post(f"{client.url}/generate_stream", json=body) as response:
            frames = (await response.text()).split("\n\n")

    assert frames[0] == ":"
    assert len([frame for frame in frames if frame.startswith("data: ")]) == 2


async def test_draining_lets_streams_finish_and_refuses_connections():
    async with serving(script_for("abc", step_s=0.002)) as client:
        body = {"inputs": "x", "parameters": {"max_new_tokens": 60}}
        stream = await client.session.post(f"{client.url}/generate_stream", json=body)
        await stream.content.readuntil(b"\n\n")

        drain = asyncio.create_task(client.router.drain(30))
        rest = await stream.content.read()

        assert await drain == 0
        assert rest.count(b"data: ") == 59
        async with aiohttp.ClientSession() as fresh:
            with pytest.raises(aiohttp.ClientConnectionError):
                await fresh.get(f"{client.url}/health")


async def test_draining_cuts_off_what_is_open_after_its_time_and_says_so():
    async with serving(SLOW, limits=ROOMY) as client:
        stream = await start_stream(client)
        plain = asyncio.create_task(client.post("/generate", FOREVER))

        async def both_run() -> bool:
            return len(client.engine.open_requests) == 2

        await until(both_run)

        assert await client.router.drain(0.05) == 2

        rest = (await stream.content.read()).decode()
        status, _, reply = await plain

    assert rest.endswith(
        'data: {"error":"Request failed during generation: Server error: the server is shutting '
        'down","error_type":"generation"}\n\n'
    )
    assert (status, reply["error_type"]) == (424, "generation")


async def test_an_engine_that_dies_answers_every_open_request():
    async with serving(SLOW, limits=ROOMY) as client:
        stream = await start_stream(client)
        plain = asyncio.create_task(client.post("/generate", FOREVER))

        async def both_run() -> bool:
            return len(client.engine.open_requests) == 2

        await until(both_run)
        client.engine.close()
        rest = (await stream.content.read()).decode()
        status, _, reply = await plain
        health, _, _ = await client.get("/health")

    assert '"error_type":"generation"' in rest.rstrip().splitlines()[-1]
    assert (status, reply["error_type"]) == (424, "generation")
    assert health == 503


async def test_health_recovers_by_itself_after_a_failed_step():
    async with serving(script_for("ab", fail_prompts_of=len(ids_of("bad")))) as client:
        failed, _, _ = await client.post("/generate", {"inputs": "bad"})
        unhealthy, _, _ = await client.get("/health")

        async def is_healthy() -> bool:
            return (await client.get("/health"))[0] == 200

        await until(is_healthy)

    assert (failed, unhealthy) == (424, 503)


async def test_counters_agree_with_what_was_asked():
    async with serving(script_for("abc")) as client:
        for _ in range(3):
            await client.post("/generate", {"inputs": "x", "parameters": {"max_new_tokens": 4}})
        await client.post("/v1/completions", {"prompt": ["x", "y"], "max_tokens": 4})
        await client.post(
            "/v1/chat/completions",
            {"messages": [{"role": "user", "content": "x"}], "max_tokens": 4},
        )
        values = {
            name: await client.metric(name)
            for name in (
                "tgi_request_count", "tgi_request_success", "tgi_request_duration_count",
                "tgi_generated_tokens", "tgi_request_generated_tokens_sum",
                "tgi_batch_current_size", "tgi_queue_size",
            )
        }  # fmt: skip

    assert values == {
        "tgi_request_count": 3 + 3 + 2,
        "tgi_request_success": 6,
        "tgi_request_duration_count": 6,
        "tgi_generated_tokens": 24,
        "tgi_request_generated_tokens_sum": 24,
        "tgi_batch_current_size": 0,
        "tgi_queue_size": 0,
    }


async def test_128_clients_are_served_by_default_and_the_next_is_refused_while_they_run():
    async with serving(script_for("abc", step_s=0.01), limits=ROOMY) as client:
        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:
            url = f"{client.url}/generate_stream"
            streams = [await session.post(url, json=FOREVER) for _ in range(128)]
            for stream in streams:
                await stream.content.readuntil(b"\n\n")
            status, _, _ = await client.post("/generate", {"inputs": "x"})
            num_running = len(client.engine.open_requests)
            for stream in streams:
                assert await stream.content.readuntil(b"\n\n")
                stream.close()
        refused = await client.metric('tgi_request_failure{err="overloaded"}')

    assert (status, num_running, refused) == (429, 128, 1)


async def test_clients_that_go_away_together_give_back_all_they_held():
    async with serving(SLOW, limits={"max_concurrent_requests": 9, **ROOMY}) as client:
        streams = [await start_stream(client) for _ in range(9)]
        for stream in streams[:6]:
            stream.close()

        async def are_gone() -> bool:
            return await client.metric("tgi_requests_running") == 3

        await until(are_gone)
        newcomers = [await start_stream(client) for _ in range(6)]
        for stream in [*streams[6:], *newcomers]:
            stream.close()

        async def is_at_rest() -> bool:
            return [await client.metric(f"tgi_{gauge}") for gauge in GAUGES] == [0] * len(GAUGES)

        await until(is_at_rest)
        ends = [
            await client.metric(f"tgi_request_{what}")
            for what in ('failure{err="dropped"}', "success", "duration_count")
        ]

    assert client.router._service._permits.num_taken == 0
    assert ends == [15, 0, 0]


async def test_every_stream_ends_with_one_last_event_or_one_error():
    script = script_for("abc", step_s=0.001, fail_prompts_of=len(ids_of("bad one")))
    limits = {"max_concurrent_requests": 20, "max_total_tokens": 1000}
    bodies = [
        {"inputs": inputs, "parameters": {"max_new_tokens": num_tokens}}
        for inputs in ("x", "bad one", "", "xyz" * 900)
        for num_tokens in (0, 1, 7, 60, 400)
    ] * 2
    async with serving(script, limits=limits) as client:
        everything = await asyncio.gather(
            *[client.stream("/generate_stream", body) for body in bodies]
        )

    for events in everything:
        *others, last = events
        assert ("error" in last) != (last.get("generated_text") is not None)
        assert not any("error" in event or event["generated_text"] for event in others)
    errors = {events[-1].get("error_type") for events in everything}
    assert errors == {None, "overloaded", "validation", "generation"}
