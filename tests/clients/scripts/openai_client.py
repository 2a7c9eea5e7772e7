"""`openai`: completions, chat, streaming helpers, `parse` with a pydantic model, tools."""

from __future__ import annotations

import json
from enum import StrEnum
from typing import Any

from harness import Servers, main, raises
from openai import (
    APIError,
    APIStatusError,
    AsyncOpenAI,
    AuthenticationError,
    OpenAI,
    RateLimitError,
    UnprocessableEntityError,
)
from pydantic import BaseModel

PROMPT = "The capital of France is"
HELLO: list[Any] = [{"role": "user", "content": "Say hello."}]
WEATHER: list[Any] = [{"role": "user", "content": "How is the weather in Rome?"}]


class City(StrEnum):
    PARIS = "Paris"
    ROME = "Rome"


class Visit(BaseModel):
    city: City
    days: int


TOOL: Any = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "Tells how the weather is.",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string", "enum": ["Paris", "Rome"]}},
            "required": ["city"],
            "additionalProperties": False,
        },
        "strict": True,
    },
}


def client(url: str, key: str = "-") -> OpenAI:
    return OpenAI(base_url=f"{url}/v1", api_key=key, max_retries=0, timeout=60)


def lists_and_finds_the_model(servers: Servers) -> None:
    models = client(servers.demo).models.list().data

    assert [model.id for model in models] == ["demo"]
    assert client(servers.demo).models.retrieve("demo").id == "demo"


def completes(servers: Servers) -> None:
    reply = client(servers.demo).completions.create(
        model="demo", prompt=[PROMPT, "Two and two is"], max_tokens=6, temperature=0, logprobs=2
    )

    assert [choice.index for choice in reply.choices] == [0, 1]
    assert "Paris" in reply.choices[0].text
    assert reply.usage is not None
    assert reply.usage.completion_tokens == 12
    logprobs = reply.choices[0].logprobs
    assert logprobs is not None
    assert "".join(logprobs.tokens or []) == reply.choices[0].text


def echoes_with_logprobs(servers: Servers) -> None:
    reply = client(servers.demo).completions.create(
        model="demo", prompt=PROMPT, max_tokens=1, echo=True, logprobs=1, temperature=0
    )

    logprobs = reply.choices[0].logprobs
    assert reply.choices[0].text.startswith(PROMPT)
    assert logprobs is not None
    assert logprobs.token_logprobs is not None
    assert logprobs.token_logprobs[0] is None
    assert all(value <= 0 for value in logprobs.token_logprobs[1:])


def completes_several_times(servers: Servers) -> None:
    def texts() -> list[str]:
        reply = client(servers.demo).completions.create(
            model="demo", prompt=PROMPT, max_tokens=8, n=2, temperature=1.2, seed=5
        )
        return [choice.text for choice in reply.choices]

    first = texts()

    assert len(set(first)) == 2
    assert texts() == first


def streams_a_completion(servers: Servers) -> None:
    whole = client(servers.demo).completions.create(
        model="demo", prompt=PROMPT, max_tokens=8, temperature=0
    )

    chunks = list(
        client(servers.demo).completions.create(
            model="demo", prompt=PROMPT, max_tokens=8, temperature=0, stream=True
        )
    )

    texts = [chunk.choices[0].text for chunk in chunks if chunk.choices]
    assert "".join(texts) == whole.choices[0].text


def chats(servers: Servers) -> None:
    reply = client(servers.demo).chat.completions.create(
        model="demo",
        messages=HELLO,
        max_completion_tokens=9,
        temperature=0.7,
        top_p=0.95,
        presence_penalty=0.2,
        frequency_penalty=0.2,
        seed=3,
        n=2,
        logprobs=True,
        top_logprobs=2,
        stop=["\n\n\n"],
        logit_bias={"5": -100},
        user="somebody",
        stream_options=None,
    )

    assert len(reply.choices) == 2
    assert reply.choices[0].logprobs is not None
    assert reply.choices[0].logprobs.content is not None
    assert len(reply.choices[0].logprobs.content[0].top_logprobs) >= 2
    assert reply.usage is not None
    assert reply.usage.completion_tokens <= 18


def streams_a_chat_with_the_helper(servers: Servers) -> None:
    whole = client(servers.demo).chat.completions.create(
        model="demo", messages=HELLO, max_tokens=200, temperature=0
    )

    with client(servers.demo).chat.completions.stream(
        model="demo",
        messages=HELLO,
        max_tokens=200,
        temperature=0,
        stream_options={"include_usage": True},
    ) as stream:
        deltas = [event.delta for event in stream if event.type == "content.delta"]
        final = stream.get_final_completion()

    assert "".join(deltas) == whole.choices[0].message.content
    assert final.usage is not None
    assert final.usage.completion_tokens < 200


def parses_into_a_pydantic_model(servers: Servers) -> None:
    reply = client(servers.demo).chat.completions.parse(
        model="demo",
        messages=[{"role": "user", "content": "I go to Rome for 3 days."}],
        response_format=Visit,
        max_tokens=100,
        temperature=0,
    )

    assert isinstance(reply.choices[0].message.parsed, Visit)


def gives_any_json_object(servers: Servers) -> None:
    reply = client(servers.demo).chat.completions.create(
        model="demo",
        messages=[{"role": "user", "content": "Rome in JSON."}],
        response_format={"type": "json_object"},
        max_tokens=120,
        temperature=0,
    )

    if reply.choices[0].finish_reason == "stop":
        assert isinstance(json.loads(reply.choices[0].message.content or ""), dict)


def makes_the_round_trip_of_a_tool(servers: Servers) -> None:
    reply = client(servers.demo).chat.completions.create(
        model="demo",
        messages=WEATHER,
        tools=[TOOL],
        tool_choice={"type": "function", "function": {"name": "weather"}},
        parallel_tool_calls=False,
        max_tokens=60,
        temperature=0,
    )
    message = reply.choices[0].message
    assert message.tool_calls is not None
    call: Any = message.tool_calls[0]
    answer = client(servers.demo).chat.completions.create(
        model="demo",
        messages=[
            *WEATHER,
            message.to_dict(),  # type: ignore[list-item]
            {"role": "tool", "tool_call_id": call.id, "content": "sunny"},
        ],
        tools=[TOOL],
        tool_choice="none",
        max_tokens=9,
        temperature=0,
    )

    assert call.function.name == "weather"
    assert json.loads(call.function.arguments)["city"] in ("Paris", "Rome")
    assert answer.choices[0].message.content


def streams_a_tool_call(servers: Servers) -> None:
    with client(servers.demo).chat.completions.stream(
        model="demo",
        messages=WEATHER,
        tools=[TOOL],
        tool_choice="required",
        max_tokens=60,
        temperature=0,
    ) as stream:
        final = stream.get_final_completion()

    calls: Any = final.choices[0].message.tool_calls
    assert [call.function.name for call in calls] == ["weather"]
    assert json.loads(calls[0].function.arguments)["city"] in ("Paris", "Rome")


def raises_its_own_errors(servers: Servers) -> None:
    def chat(url: str, key: str = "-", **options: Any) -> Any:
        return client(url, key).chat.completions.create(
            model="demo", messages=HELLO, max_tokens=4, **options
        )

    with raises(UnprocessableEntityError, "`temperature` must be strictly positive"):
        chat(servers.demo, temperature=-1)
    with raises(RateLimitError, "Model is overloaded"):
        chat(servers.full)
    with raises(APIStatusError, "Request failed during generation"):
        chat(servers.failing)
    with raises(APIError, "Model is overloaded"):
        list(chat(servers.full, stream=True))
    with raises(APIError, "Request failed during generation"):
        list(chat(servers.failing, stream=True))
    with raises(AuthenticationError):
        chat(servers.keyed, "wrong")
    assert chat(servers.keyed, servers.api_key).choices


async def does_it_asynchronously(servers: Servers) -> None:
    async_client = AsyncOpenAI(base_url=f"{servers.demo}/v1", api_key="-", max_retries=0)

    stream = await async_client.chat.completions.create(
        model="demo", messages=HELLO, max_tokens=5, temperature=0, stream=True
    )
    texts = [chunk.choices[0].delta.content or "" async for chunk in stream]
    whole = await async_client.chat.completions.create(
        model="demo", messages=HELLO, max_tokens=5, temperature=0
    )

    assert "".join(texts) == whole.choices[0].message.content


if __name__ == "__main__":
    main(
        lists_and_finds_the_model,
        completes,
        echoes_with_logprobs,
        completes_several_times,
        streams_a_completion,
        chats,
        streams_a_chat_with_the_helper,
        parses_into_a_pydantic_model,
        gives_any_json_object,
        makes_the_round_trip_of_a_tool,
        streams_a_tool_call,
        raises_its_own_errors,
        does_it_asynchronously,
    )
