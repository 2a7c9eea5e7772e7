"""A stream ends as it should, whatever becomes of its client."""

from __future__ import annotations

import aiohttp
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from tgi_cli.errors import GenerationError, RequestError
from tgi_cli.runtime.router.streaming import EventStream, send_events


def error_frame(error: RequestError) -> bytes:
    return b"data: error\n\n"


async def leave(stream: EventStream) -> None:
    stream.send(b"data: 1\n\n")
    stream._protocol.transport.abort()


async def leave_before_an_error(stream: EventStream) -> None:
    await leave(stream)
    raise GenerationError("the engine ended")


async def leave_and_write(stream: EventStream) -> None:
    await leave(stream)
    await stream.write(b"data: 2\n\n")


@pytest.mark.parametrize("produce", [leave, leave_before_an_error, leave_and_write, None])
async def test_a_client_that_leaves_at_any_moment_is_no_error(produce):
    """`None`: it leaves before the headers are sent."""
    ends = []

    async def handler(request: web.Request) -> web.StreamResponse:
        if produce is None:
            request.transport.abort()
        response = await send_events(request, {}, produce or leave, error_frame)
        ends.append("well")
        return response

    app = web.Application()
    app.router.add_post("/", handler)
    async with TestServer(app) as server, aiohttp.ClientSession() as session:
        with pytest.raises(aiohttp.ClientError):
            async with session.post(server.make_url("/")) as response:
                await response.read()

    assert ends == ["well"]
