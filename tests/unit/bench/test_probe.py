"""What an endpoint is found to speak and to take."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from tests.builders.endpoint import HEAD, Answer, answering_with, chat, event, said, status
from tgi_cli.errors import UnreachableError
from tgi_cli.runtime.bench.messages import Timeouts
from tgi_cli.runtime.bench.probe import Probe
from tgi_cli.runtime.bench.protocols import BodyOptions
from tgi_cli.runtime.bench.result import Endpoint
from tgi_cli.runtime.bench.transport import TransportOptions


async def find(answer: Any) -> tuple[Endpoint, Any]:
    async with answering_with(answer) as endpoint:
        transport = TransportOptions(url=endpoint.url)
        async with Probe(endpoint.url, transport, BodyOptions(), Timeouts()) as probe:
            return await probe.find(None, forces_length=True), probe.body


def openai(refused: frozenset[str]) -> Any:
    """Return a server that answers 400 to bodies with one of these fields."""

    def answer(_number: int, path: str, body: Any) -> Answer:
        if path == "/v1/models":
            return status(200, json.dumps({"data": [{"id": "m"}]}))
        if path != "/v1/chat/completions":
            return status(404)
        names = {*body, *body.get("stream_options", {})}
        if names & refused:
            return status(400, "unknown field")
        return chat("a", "b", usage=2 if "stream_options" in body else None)

    return answer


async def test_a_server_with_models_alone_is_asked_as_a_chat() -> None:
    found, body = await find(openai(frozenset()))

    assert (found.protocol, found.model) == ("chat", "m")
    assert body.max_completion_tokens
    assert body.ignore_eos
    assert body.min_tokens


async def test_a_field_that_is_refused_is_left_out_from_then_on() -> None:
    refused = frozenset({"ignore_eos", "stream_options", "max_completion_tokens"})

    found, body = await find(openai(refused))

    assert found.capabilities == {
        "include_usage": False,
        "ignore_eos": False,
        "min_tokens": True,
        "max_completion_tokens": False,
    }
    assert not body.include_usage
    assert not body.ignore_eos
    assert not body.max_completion_tokens


async def test_a_count_at_the_end_alone_is_not_one_that_goes_on() -> None:
    found, _ = await find(openai(frozenset()))

    assert found.capabilities["include_usage"]
    assert not found.capabilities["continuous_usage_stats"]


async def test_nobody_there_is_said_with_its_class() -> None:
    transport = TransportOptions(url="http://127.0.0.1:9")
    async with Probe("http://127.0.0.1:9", transport, BodyOptions(), Timeouts()) as probe:
        with pytest.raises(UnreachableError, match="refused"):
            await probe.find(None, forces_length=True)


async def test_a_first_request_that_fails_ends_the_run() -> None:
    def answer(_number: int, path: str, _body: object) -> Answer:
        return status(200, '{"model_id":"m"}') if path == "/info" else status(503, "asleep")

    with pytest.raises(UnreachableError, match="asleep"):
        await find(answer)


async def test_a_chat_that_writes_on_and_on_is_asked_by_the_old_name_of_the_length() -> None:
    """Some servers take an unknown field without a word, `max_completion_tokens` among them."""

    def answer(_number: int, path: str, body: Any) -> Answer:
        if path == "/v1/models":
            return status(200, json.dumps({"data": [{"id": "m"}]}))
        if path != "/v1/chat/completions":
            return status(404)
        if "max_tokens" in body:
            return chat("a", "b")
        return [HEAD, *[event(said("more ")) for _ in range(40)], asyncio.Event()]

    found, body = await find(answer)

    assert not body.max_completion_tokens
    assert found.capabilities["max_completion_tokens"] is False
