"""Probes of whole routers on loopback, over the fake engine."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from aiohttp import web

from tests.builders.router import script_for, serving
from tgi_cli.runtime.config.probe import read_options
from tgi_cli.runtime.health.probe import Outcome, exit_code, probe
from tgi_cli.runtime.health.report import read_gauges
from tgi_cli.runtime.ipc.fake_engine import FakeScript


async def ask(*argv: str, **environ: str) -> tuple[Outcome, int]:
    """Return the outcome and the exit code of `--codes full`."""
    options = read_options((*argv, "--codes", "full"), environ)
    assert options is not None
    outcome = await asyncio.to_thread(probe, options)
    return outcome, exit_code(outcome, options)


@asynccontextmanager
async def answering(*routes: web.RouteDef) -> AsyncIterator[str]:
    """Serve somebody else's server on loopback."""
    app = web.Application()
    app.add_routes(routes)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


def state(status: int, said: str) -> Any:
    async def handler(_: web.Request) -> web.Response:
        return web.json_response({"status": said, "model": "there"}, status=status)

    return handler


@pytest.mark.parametrize("level", ["live", "ready", "deep"])
async def test_a_server_that_works_is_well_at_every_level(level: str) -> None:
    async with serving(script_for("ab")) as client:
        outcome, code = await ask(client.url, "--level", level, "--model", "tiny")

    assert (outcome.status, code) == ("ok", 0), outcome


async def test_a_draining_server_is_live_and_not_ready() -> None:
    async with serving() as client:
        client.router._service.is_draining = True

        live, _ = await ask(client.url, "--level", "live")
        ready, code = await ask(client.url)

    assert live.is_well
    assert (ready.status, code) == ("draining", 5)


async def test_a_full_server_is_busy_and_well() -> None:
    limits = {"max_concurrent_requests": 1, "max_total_tokens": 1 << 16}
    async with serving(FakeScript(step_s=0.02), limits=limits) as client:
        body = {"inputs": "x", "parameters": {"max_new_tokens": 1 << 15}}
        async with client.session.post(f"{client.url}/generate_stream", json=body) as response:
            await response.content.readany()

            outcome, code = await ask(client.url, "--level", "deep")

    assert (outcome.status, code) == ("busy", 0)


async def test_an_engine_that_fails_is_found_by_the_deep_level() -> None:
    async with serving(FakeScript(fails=True)) as client:
        outcome, code = await ask(client.url, "--level", "deep")

    assert (outcome.status, code) == ("unhealthy", 1)


async def test_only_the_deep_level_needs_the_key() -> None:
    async with serving(api_key="secret") as client:
        ready, _ = await ask(client.url)
        without, code = await ask(client.url, "--level", "deep")
        with_key, _ = await ask(client.url, "--level", "deep", TGI_API_KEY="secret")

    assert ready.is_well
    assert (without.status, code) == ("unauthorized", 7)
    assert with_key.is_well


async def test_another_model_than_the_one_wanted_is_no_success() -> None:
    async with serving() as client:
        outcome, code = await ask(client.url, "--model", "other")

    assert (outcome.status, code) == ("wrong_model", 8)
    assert "tiny" in outcome.message


async def test_a_first_token_after_its_limit_is_no_success() -> None:
    async with serving(FakeScript(step_s=0.05)) as client:
        outcome, code = await ask(client.url, "--level", "deep", "--max-ttft", "1ms")

    assert (outcome.status, code) == ("slow", 1)


async def test_tgi_itself_is_asked_by_its_one_health_route() -> None:
    async def healthy(_: web.Request) -> web.Response:
        return web.Response()

    async def info(_: web.Request) -> web.Response:
        return web.json_response({"model_id": "theirs"})

    async with answering(web.get("/health", healthy), web.get("/info", info)) as url:
        outcome, code = await ask(url, "--model", "theirs")

    assert (outcome.status, code) == ("ok", 0)


@pytest.mark.parametrize(("path", "kind"), [("completions", "text"), ("chat/completions", "chat")])
async def test_an_openai_server_is_tried_in_depth_by_the_route_that_it_has(
    path: str, kind: str
) -> None:
    async def stream(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"content-type": "text/event-stream"})
        await response.prepare(request)
        ends: list[dict[str, Any]] = [{"text": "Hi"}, {"text": "", "finish_reason": None}]
        if kind == "chat":
            ends = [{"delta": {"role": "assistant"}}, {"delta": {"content": "Hi"}}]
        ends[-1]["finish_reason"] = "length" if kind == "chat" else None
        if kind == "text":
            ends = [{"text": "Hi", "finish_reason": "length"}]
        for choice in ends:
            await response.write(f"data: {json.dumps({'choices': [choice]})}\n\n".encode())
        await response.write(b"data: [DONE]\n\n")
        return response

    async with answering(web.post(f"/v1/{path}", stream)) as url:
        outcome, _ = await ask(url, "--level", "deep")

    assert outcome.status == "ok", outcome


@pytest.mark.parametrize(
    ("said", "status", "code"),
    [
        ("loading", "loading", 5),
        ("stalled", "stalled", 6),
        ("dead", "dead", 1),
        ("", "unhealthy", 1),
    ],
)
async def test_what_a_server_says_of_itself_decides(said: str, status: str, code: int) -> None:
    async with answering(web.get("/health/ready", state(503, said))) as url:
        outcome, given = await ask(url)

    assert (outcome.status, given) == (status, code)


async def test_nobody_there_is_unreachable() -> None:
    outcome, code = await ask("http://127.0.0.1:1")

    assert (outcome.status, code) == ("unreachable", 3)


async def test_waiting_ends_when_the_server_is_well() -> None:
    num_asked = 0

    async def ready(request: web.Request) -> web.Response:
        nonlocal num_asked
        num_asked += 1
        is_ready = num_asked == 3
        return await state(200 if is_ready else 503, "idle" if is_ready else "loading")(request)

    async with answering(web.get("/health/ready", ready)) as url:
        outcome, _ = await ask(url, "--wait", "60s")

    assert outcome.is_well
    assert num_asked == 3


async def test_waiting_ends_at_once_for_the_dead_and_for_a_process_that_is_gone() -> None:
    gone = await asyncio.create_subprocess_exec(sys.executable, "-c", "")
    await gone.wait()
    async with answering(web.get("/health/ready", state(503, "dead"))) as url:
        dead, _ = await ask(url, "--wait", "60s")
    async with answering(web.get("/health/ready", state(503, "loading"))) as url:
        without_process, _ = await ask(url, "--wait", "60s", "--pid", str(gone.pid))

    assert (dead.status, without_process.status) == ("dead", "dead")


async def test_waiting_goes_on_only_as_long_as_it_may() -> None:
    async with answering(web.get("/health/ready", state(503, "loading"))) as url:
        outcome, _ = await ask(url, "--wait", "300ms", "--pid", str(os.getpid()))

    assert outcome.status == "loading"


async def run(*argv: str) -> tuple[int, str, str]:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-X", "importtime", "-m", "tgi_cli", "health", *argv),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env={"PYTHONPATH": os.environ.get("PYTHONPATH", ""), "PATH": os.environ["PATH"]},
    )
    out, err = await process.communicate()
    assert process.returncode is not None
    return process.returncode, out.decode(), err.decode()


async def test_a_probe_imports_nothing_heavy_and_prints_one_line() -> None:
    heavy = (
        "typer",
        "rich",
        "asyncio",
        "aiohttp",
        "torch",
        "msgspec",
        "http.client",
        "dataclasses",
    )
    async with serving() as client:
        code, out, err = await run(client.url)

    imported = {line.rpartition("|")[2].strip() for line in err.splitlines()}
    assert code == 0
    assert out.count("\n") == 1
    assert len(out) <= 201
    assert imported.isdisjoint(heavy), imported.intersection(heavy)


async def test_json_is_one_line_with_the_servers_own_words() -> None:
    async with serving() as client:
        _, out, _ = await run(client.url, "--json")

    line = json.loads(out)
    assert line["healthy"] is True
    assert line["server"]["model"] == "tiny"


async def test_a_person_sees_model_limits_queue_batch_and_kv_use() -> None:
    async with serving() as client:
        _, out, _ = await run(client.url, "--human")

    names = [line.split()[0] for line in out.splitlines()[1:]]
    assert names == ["model", "limits", "queue", "batch", "kv"]


@pytest.mark.parametrize("argv", [("--level", "sick"), ("--bogus",), ("http://127.0.0.1:1",)])
async def test_the_exit_code_is_0_or_1_and_nothing_else(argv: tuple[str, ...]) -> None:
    code, _, _ = await run(*argv)

    assert code == 1


async def test_quiet_prints_nothing() -> None:
    _, out, _ = await run("http://127.0.0.1:1", "-q")

    assert out == ""


def test_gauges_are_the_series_without_labels() -> None:
    text = '# TYPE a gauge\na 3\nb{c="d"} 4\nc nonsense\n'

    assert read_gauges(text) == {"a": 3.0}
