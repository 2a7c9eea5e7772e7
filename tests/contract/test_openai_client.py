"""OpenAI's own client on chats: what its helpers make of our replies and events."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from openai import AsyncOpenAI
from pydantic import BaseModel

from tests.builders.router import answering, ids_of, serving
from tests.builders.tokenizers import END

ROOMY = {"max_input_tokens": 4000, "max_total_tokens": 5000}
HI = [{"role": "user", "content": "Hi"}]
TOOL = {
    "type": "function",
    "function": {
        "name": "weather",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
        "strict": True,
    },
}
CALL = '{"function": {"_name": "weather", "city": "Oslo"}}'


class City(BaseModel):
    name: str
    visits: int


@asynccontextmanager
async def client_of(*replies: str, **config: object) -> AsyncIterator[AsyncOpenAI]:
    async with (
        serving(answering(*replies), limits=ROOMY, **config) as server,
        AsyncOpenAI(base_url=f"{server.url}/v1", api_key="-", max_retries=0) as client,
    ):
        yield client


async def test_a_chat_with_choices_and_logprobs():
    async with client_of("one", "two") as client:
        reply = await client.chat.completions.create(
            model="tiny", messages=HI, n=2, logprobs=True, top_logprobs=2, seed=3
        )

    assert {choice.message.content for choice in reply.choices} == {"one", "two"}
    first = reply.choices[0].logprobs.content[0]
    assert bytes(first.bytes).decode() == first.token
    assert len(first.top_logprobs) == 2
    assert reply.usage.completion_tokens == sum(len(ids_of(t)) + 1 for t in ("one", "two"))


async def test_the_streaming_helper_collects_the_text():
    async with (
        client_of("Hello there") as client,
        client.chat.completions.stream(
            model="tiny", messages=HI, stream_options={"include_usage": True}
        ) as stream,
    ):
        deltas = [event.delta async for event in stream if event.type == "content.delta"]
        final = await stream.get_final_completion()

    assert "".join(deltas) == final.choices[0].message.content == "Hello there"
    assert final.choices[0].finish_reason == "stop"
    assert final.usage.prompt_tokens == len(ids_of(f"<|user|>Hi{END}<|assistant|>"))


async def test_parse_returns_a_pydantic_model():
    async with client_of('{"name": "Oslo", "visits": 3}') as client:
        reply = await client.chat.completions.parse(model="tiny", messages=HI, response_format=City)

    assert reply.choices[0].message.parsed == City(name="Oslo", visits=3)


async def test_a_tool_makes_its_round_trip():
    async with client_of(CALL, "It rains.") as client:
        first = await client.chat.completions.create(
            model="tiny", messages=HI, tools=[TOOL], tool_choice="required"
        )
        message = first.choices[0].message
        result = {"role": "tool", "tool_call_id": message.tool_calls[0].id, "content": "rain"}
        second = await client.chat.completions.create(
            model="tiny",
            messages=[*HI, message.to_dict(), result],
            tools=[TOOL],
            tool_choice="none",
        )

    assert message.tool_calls[0].function.name == "weather"
    assert json.loads(message.tool_calls[0].function.arguments) == {"city": "Oslo"}
    assert second.choices[0].message.content == "It rains."


@pytest.mark.parametrize("is_strict", [False, True])
async def test_the_streaming_helper_collects_a_call(is_strict):
    async with (
        client_of(CALL, openai_strict=is_strict) as client,
        client.chat.completions.stream(
            model="tiny", messages=HI, tools=[TOOL], tool_choice="required"
        ) as stream,
    ):
        final = await stream.get_final_completion()

    [choice] = final.choices
    [call] = choice.message.tool_calls
    assert call.function.name == "weather"
    assert json.loads(call.function.arguments) == {"city": "Oslo"}
    assert choice.finish_reason == "tool_calls"
    if is_strict:  # by default each event tells them, as TGI's do
        assert call.id.count("call_") == 1
        assert choice.message.role == "assistant"
