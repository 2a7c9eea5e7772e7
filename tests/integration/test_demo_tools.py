"""Function calls and structured chats from the demo model itself."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import openai
import pytest
from pydantic import BaseModel

from tests.builders.served import served

MESSAGES: list[Any] = [{"role": "user", "content": "How is the weather in Rome?"}]
SCHEMA = {
    "type": "object",
    "properties": {"city": {"$ref": "#/$defs/City"}, "days": {"type": "integer"}},
    "required": ["city", "days"],
    "$defs": {"City": {"enum": ["Paris", "Rome"]}},
}
TOOLS: list[Any] = [
    {
        "type": "function",
        "function": {"name": "weather", "description": "Look outside", "parameters": SCHEMA},
    }
]


class Visit(BaseModel):
    city: str
    days: int


@pytest.fixture(scope="module")
def client() -> Iterator[openai.OpenAI]:
    with (
        served("--model-id", "demo", "--openai-strict") as server,
        openai.OpenAI(base_url=f"{server.wait_ready()}/v1", api_key="-", max_retries=0) as client,
    ):
        yield client


@pytest.mark.parametrize("temperature", [0.0, 1.3])
def test_a_required_call_parses_streamed_and_whole(client, temperature):
    options: dict[str, Any] = {
        "model": "demo",
        "messages": MESSAGES,
        "tools": TOOLS,
        "tool_choice": "required",
        "max_tokens": 120,
        "temperature": temperature,
        "seed": 7,
    }

    whole = client.chat.completions.create(**options).choices[0]
    with client.chat.completions.stream(**options) as stream:
        streamed = stream.get_final_completion().choices[0]

    for choice in (whole, streamed):
        [call] = choice.message.tool_calls
        arguments = json.loads(call.function.arguments)
        assert choice.finish_reason == "tool_calls"
        assert call.function.name == "weather"
        assert arguments["city"] in ("Paris", "Rome")
        assert isinstance(arguments["days"], int)
    assert json.loads(whole.message.tool_calls[0].function.arguments) == json.loads(
        streamed.message.tool_calls[0].function.arguments
    )


def test_a_model_that_may_answer_in_words_calls_or_answers(client):
    reply = client.chat.completions.create(
        model="demo", messages=MESSAGES, tools=TOOLS, max_tokens=120, temperature=0
    )

    message = reply.choices[0].message
    assert message.tool_calls or message.content


def test_a_pydantic_model_is_filled(client):
    reply = client.chat.completions.parse(
        model="demo",
        messages=[{"role": "user", "content": "I go to Rome for 3 days."}],
        response_format=Visit,
        max_tokens=150,
        temperature=0,
    )

    assert isinstance(reply.choices[0].message.parsed, Visit)
