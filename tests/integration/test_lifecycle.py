"""Start, stop and death of a whole server, in real processes. The engine is the fake one where the
model doesn't matter: the processes, channels and signals are the same."""

from __future__ import annotations

import asyncio
import json
import signal
import socket
import time
import urllib.error
import urllib.request

import aiohttp
import pytest

from tests.builders.served import Served, served

FAKE = ("--engine", "fake")


async def open_stream(
    session: aiohttp.ClientSession, url: str, num_tokens: int
) -> aiohttp.ClientResponse:
    """Return a stream that has brought its first event."""
    body = {"inputs": "x", "parameters": {"max_new_tokens": num_tokens}}
    response = await session.post(f"{url}/generate_stream", json=body)
    assert response.status == 200
    await response.content.readuntil(b"\n\n")
    return response


async def events_left(response: aiohttp.ClientResponse) -> list[dict[str, object]]:
    text = (await response.content.read()).decode()
    lines = [line for line in text.split("\n") if line.startswith("data:")]
    return [json.loads(line.removeprefix("data:")) for line in lines]


def is_refused(url: str) -> bool:
    try:
        urllib.request.urlopen(f"{url}/health", timeout=5).close()
    except (urllib.error.URLError, ConnectionError):
        return True
    return False


def health_status(url: str) -> int | None:
    """Return what `/health` answers, or None if nobody listens."""
    try:
        with urllib.request.urlopen(f"{url}/health", timeout=5) as response:
            return int(response.status)
    except urllib.error.HTTPError as exc:
        return exc.code
    except urllib.error.URLError:
        return None


def assert_ended(server: Served, exit_code: int) -> None:
    assert server.wait_exit() == exit_code, "\n".join(server.lines)
    assert server.survivors() == []
    assert not any("Traceback" in line for line in server.lines)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_an_idle_server_stops_when_told_and_leaves_nothing(number: signal.Signals) -> None:
    with served(*FAKE) as server:
        url = server.wait_ready()
        assert not is_refused(url)

        server.send(number)

        assert_ended(server, 0)
        assert any("starting graceful shutdown" in line for line in server.lines)
        assert is_refused(url)


async def test_open_streams_lose_no_token_when_the_server_is_told_to_stop() -> None:
    num_tokens = 2_003
    with served(*FAKE) as server:
        url = server.wait_ready()
        async with aiohttp.ClientSession() as session:
            streams = [await open_stream(session, url, num_tokens) for _ in range(10)]

            server.send(signal.SIGTERM)
            server.wait_for("starting graceful shutdown")
            rest = await asyncio.gather(*(events_left(stream) for stream in streams))

        assert [len(events) for events in rest] == [num_tokens - 1] * 10
        assert all(events[-1]["generated_text"] for events in rest)
        assert_ended(server, 0)


async def test_ctrl_c_in_a_terminal_reaches_the_main_process_alone() -> None:
    num_tokens = 2_003
    with served(*FAKE) as server:
        url = server.wait_ready()
        async with aiohttp.ClientSession() as session:
            stream = await open_stream(session, url, num_tokens)

            server.press_ctrl_c()
            rest = await events_left(stream)

        assert len(rest) == num_tokens - 1
        assert_ended(server, 0)


async def test_streams_are_cut_off_when_the_grace_is_over() -> None:
    with served(*FAKE, "-g", "0") as server:
        url = server.wait_ready()
        async with aiohttp.ClientSession() as session:
            stream = await open_stream(session, url, 8_000)
            server.engine().suspend()  # the stream can't end by itself

            server.send(signal.SIGTERM)

            assert_ended(server, 0)
            stream.close()


async def test_a_second_signal_ends_the_server_now() -> None:
    with served(*FAKE, "-g", "86400") as server:
        url = server.wait_ready()
        async with aiohttp.ClientSession() as session:
            stalled = await open_stream(session, url, 8_000)
            server.engine().suspend()  # the stream can't end by itself

            server.send(signal.SIGTERM)
            server.wait_for("starting graceful shutdown")
            server.send(signal.SIGTERM)

            assert_ended(server, 0)
            stalled.close()


def test_a_server_that_is_killed_takes_its_family_along() -> None:
    with served(*FAKE) as server:
        server.wait_ready()
        assert len(server.family) >= 2  # the engine and the template worker

        server.send(signal.SIGKILL)

        assert server.wait_exit() == -signal.SIGKILL
        assert server.survivors() == []


async def test_when_the_engine_dies_open_streams_are_told_and_the_server_fails() -> None:
    with served(*FAKE) as server:
        url = server.wait_ready()
        async with aiohttp.ClientSession() as session:
            stream = await open_stream(session, url, 8_000)

            server.engine().kill()
            events = await events_left(stream)

        assert events[-1]["error_type"] == "generation"
        assert_ended(server, 1)
        assert any("Shard 0 crashed (signal SIGKILL)" in line for line in server.lines)


def test_a_signal_while_the_model_loads_is_a_clean_stop() -> None:
    with served() as server:
        server.wait_started()

        server.send(signal.SIGTERM)

        assert_ended(server, 0)
        assert not any("Connected" in line for line in server.lines)


def test_nobody_is_answered_before_the_warm_up_is_over() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    url = f"http://127.0.0.1:{port}"
    with served("--port", str(port)) as server:
        server.wait_started()
        assert health_status(url) is None

        while (status := health_status(url)) is None:
            time.sleep(0.01)

        assert status == 200
        assert server.wait_ready() == url
        assert any("Warming up" in line for line in server.lines)


def test_an_engine_that_dies_while_it_loads_is_named() -> None:
    with served() as server:
        server.wait_started()

        server.engine().kill()

        assert_ended(server, 1)
        last = "\n".join(server.lines)
        assert "Error: The engine ended before it was ready (signal SIGKILL)" in last


def test_an_address_in_use_is_named_with_the_fix() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with served(*FAKE, "--port", str(port)) as server:
            assert_ended(server, 1)

    errors = [line for line in server.lines if line.startswith(("Error: ", "Hint: "))]
    assert len(errors) == 2
    assert f"127.0.0.1:{port}" in errors[0]


@pytest.mark.parametrize(
    ("args", "text"),
    [
        (("--model-id", "./no-such-folder"), "no such file or folder"),
        (("--validation-workers", "0"), 'ArgumentValidation("`validation_workers` must be > 0")'),
        (("--device", "cuda"), "`device` is cuda, but "),
        (("--max-total-tokens", "1000000000000"), "Not enough memory to handle"),
    ],
)
def test_a_server_that_cannot_start_says_why_in_a_line(args: tuple[str, ...], text: str) -> None:
    with served(*FAKE, *args) as server:
        assert_ended(server, 1)

    (error,) = [line for line in server.lines if line.startswith("Error: ")]
    assert text in error


def test_for_machines_every_line_is_an_object_and_secrets_are_masked() -> None:
    with served(*FAKE, "--json-output", "--api-key", "opensesame") as server:
        server.wait_for('"Connected"')
        server.send(signal.SIGTERM)
        server.wait_exit()

    lines = [json.loads(line) for line in server.lines]
    assert {"timestamp", "level", "message", "target"} <= set.intersection(*map(set, lines))
    assert "opensesame" not in "\n".join(server.lines)
