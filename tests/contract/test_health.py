"""Probes: spec/http-api.md section 3 and scheduling.md section 9."""

from __future__ import annotations

import asyncio
import json
import time

import pytest

from tests.builders.router import serving
from tgi_cli.runtime.ipc.fake_engine import FakeScript

PROBES = ("/health", "/ping", "/", "/health/live", "/health/ready", "/v2/health/live",
          "/v2/health/ready", "/v2/models/m/versions/1/ready")  # fmt: skip
LIVENESS = ("/health/live", "/v2/health/live")


async def statuses(client):
    return {path: (await client.get(path))[0] for path in PROBES}


async def state(client):
    return json.loads((await client.get("/health/ready"))[2])


async def test_an_idle_server_is_well():
    async with serving() as client:
        found = await statuses(client)
        before = await state(client)
        await client.post("/generate", {"inputs": "x", "parameters": {"max_new_tokens": 2}})
        after = await state(client)

    assert set(found.values()) == {200}
    assert list(before) == ["status", "model", "running", "waiting", "last_step_age_s", "uptime_s"]
    assert (before["status"], before["model"], before["last_step_age_s"]) == ("idle", "tiny", None)
    assert 0 <= after["last_step_age_s"] <= after["uptime_s"]


async def test_a_draining_server_lives_but_takes_nothing_more():
    async with serving() as client:
        client.router._service.is_draining = True
        found = await statuses(client)
        now = await state(client)

    assert found == {path: 200 if path in LIVENESS else 503 for path in PROBES}
    assert now["status"] == "draining"


async def test_an_engine_that_is_silent_with_work_is_stalled():
    script = FakeScript(step_s=0.01)
    async with serving(script) as client:
        body = {"inputs": "x", "parameters": {"max_new_tokens": 80}}
        async with client.session.post(f"{client.url}/generate_stream", json=body) as response:
            await response.content.readline()
            client.router._service.heartbeat._stall_timeout_s = -1.0  # any silence is too long
            found, busy = await statuses(client), await state(client)
            await response.read()
        idle, later = await statuses(client), await state(client)

    assert set(found.values()) == {503}  # nothing but a restart helps: that is what liveness asks
    assert (busy["status"], busy["running"], busy["waiting"]) == ("stalled", 1, 0)
    assert set(idle.values()) == {200}
    assert later["status"] == "idle"


async def test_work_after_a_long_rest_is_no_stall():
    async with serving(FakeScript(step_s=0.01)) as client:
        client.engine.last_step_ns = time.monotonic_ns() - 10**13
        body = {"inputs": "x", "parameters": {"max_new_tokens": 60}}
        submitted = asyncio.Event()
        submit = client.engine.submit
        client.engine.submit = lambda request: submitted.set() or submit(request)
        request = asyncio.create_task(client.post("/generate", body))
        await submitted.wait()
        is_stalled = client.router._service.heartbeat.is_stalled
        await request

    assert not is_stalled


@pytest.mark.parametrize("path", PROBES)
async def test_nobody_is_well_after_the_engines_end(path):
    async with serving() as client:
        client.engine.shut_down()
        await client.engine.closed.wait()
        status, _, _ = await client.get(path)
        now = await state(client)

    assert status == 503
    assert now["status"] == "dead"


async def test_a_failed_step_shows_until_a_probe_step_works():
    async with serving(FakeScript(fail_prompts_of=3)) as client:
        await client.post("/generate", {"inputs": "xyz"})
        first = await state(client)
        probe = client.router._service._probe
        if probe is not None:
            await probe
        second = await state(client)

    assert (first["status"], second["status"]) == ("failing", "idle")
