"""`huggingface_hub.InferenceClient`, sync and async: one script for 0.36, 1.x and 2.x."""

from __future__ import annotations

import json
from functools import cache

from harness import Servers, main, raises
from huggingface_hub import AsyncInferenceClient, InferenceClient
from huggingface_hub.errors import (
    GenerationError,
    HfHubHTTPError,
    OverloadedError,
    ValidationError,
)

PROMPT = "The capital of France is"
HELLO = [{"role": "user", "content": "Say hello."}]
SCHEMA = {
    "type": "object",
    "properties": {"city": {"type": "string", "maxLength": 20}, "age": {"type": "integer"}},
    "required": ["city", "age"],
}
TOOL = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "Tells how the weather is.",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string", "enum": ["Paris", "Rome"]}},
            "required": ["city"],
        },
    },
}


@cache  # a client that nobody holds closes its streams
def client(url: str) -> InferenceClient:
    return InferenceClient(url, timeout=60)


def generates_text_and_details(servers: Servers) -> None:
    text = client(servers.demo).text_generation(PROMPT, max_new_tokens=7)
    output = client(servers.demo).text_generation(
        PROMPT, max_new_tokens=7, details=True, decoder_input_details=True, top_n_tokens=2
    )

    assert "Paris" in text
    assert output.generated_text == text
    assert output.details.finish_reason == "length"
    assert output.details.generated_tokens == len(output.details.tokens) == 7
    assert len(output.details.prefill) == 5
    assert all(len(best) >= 2 for best in output.details.top_tokens)


def knows_every_parameter(servers: Servers) -> None:
    output = client(servers.demo).text_generation(
        PROMPT,
        details=True,
        best_of=2,
        do_sample=True,
        frequency_penalty=0.1,
        max_new_tokens=6,
        repetition_penalty=1.1,
        return_full_text=True,
        stop=["\n\n\n"],
        temperature=0.8,
        top_k=20,
        top_p=0.9,
        truncate=3,
        typical_p=0.9,
        watermark=True,
    )

    assert output.generated_text.startswith(PROMPT)
    assert len(output.details.best_of_sequences) == 1


def streams_text_and_details(servers: Servers) -> None:
    # On `/` the default is the full text, as the model's task is unknown.
    options = {"max_new_tokens": 9, "return_full_text": False}
    whole = client(servers.demo).text_generation(PROMPT, **options)

    pieces = list(client(servers.demo).text_generation(PROMPT, stream=True, **options))
    events = list(
        client(servers.demo).text_generation(PROMPT, stream=True, details=True, **options)
    )

    assert "".join(pieces) == whole
    assert events[-1].generated_text == whole
    assert events[-1].details.generated_tokens == 9


def guides_by_schema_and_by_pattern(servers: Servers) -> None:
    by_schema = client(servers.demo).text_generation(
        "Paris as JSON: ",
        max_new_tokens=90,
        details=True,
        return_full_text=False,
        grammar={"type": "json", "value": SCHEMA},
    )
    by_pattern = client(servers.demo).text_generation(
        "My number: ",
        max_new_tokens=20,
        return_full_text=False,
        grammar={"type": "regex", "value": "[0-9]{3}"},
    )

    if by_schema.details.finish_reason == "eos_token":
        assert set(json.loads(by_schema.generated_text)) == {"city", "age"}
    assert by_pattern.isdigit()
    assert len(by_pattern) == 3


def raises_its_own_errors(servers: Servers) -> None:
    with raises(ValidationError, "`inputs` tokens"):
        client(servers.demo).text_generation("word " * 20_000)
    with raises(ValidationError, "`temperature` must be strictly positive"):
        client(servers.demo).text_generation(PROMPT, temperature=-1.0)
    with raises(ValidationError, "`temperature` must be strictly positive"):
        list(client(servers.demo).text_generation(PROMPT, temperature=-1.0, stream=True))
    with raises(OverloadedError, "Model is overloaded"):
        client(servers.full).text_generation(PROMPT)
    with raises(OverloadedError, "Model is overloaded"):
        list(client(servers.full).text_generation(PROMPT, stream=True))
    with raises(OverloadedError, "Model is overloaded"):
        list(client(servers.full).chat_completion(HELLO, stream=True))
    with raises(GenerationError, "Request failed during generation"):
        client(servers.failing).text_generation(PROMPT)
    with raises(GenerationError, "Request failed during generation"):
        list(client(servers.failing).text_generation(PROMPT, stream=True))
    with raises(GenerationError, "Request failed during generation"):
        list(client(servers.failing).chat_completion(HELLO, stream=True))
    with raises(HfHubHTTPError, "429"):
        client(servers.full).chat_completion(HELLO)


def brings_its_key(servers: Servers) -> None:
    keyed = InferenceClient(servers.keyed, token=servers.api_key)

    assert keyed.text_generation(PROMPT, max_new_tokens=2)
    assert keyed.chat_completion(HELLO, max_tokens=2).choices
    with raises(HfHubHTTPError, "401"):
        client(servers.keyed).chat_completion(HELLO, max_tokens=2)


def chats_and_streams_a_chat(servers: Servers) -> None:
    whole = client(servers.demo).chat_completion(
        HELLO, max_tokens=9, temperature=0.7, seed=3, logprobs=True, top_logprobs=2
    )
    chunks = list(
        client(servers.demo).chat_completion(
            HELLO,
            max_tokens=9,
            temperature=0.7,
            seed=3,
            stream=True,
            stream_options={"include_usage": True},
        )
    )

    assert len(whole.choices[0].logprobs.content) == 9
    assert whole.usage.completion_tokens == 9
    texts = [chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices]
    assert "".join(texts) == whole.choices[0].message.content
    assert chunks[-1].usage.completion_tokens == 9


def chats_by_a_schema(servers: Servers) -> None:
    reply = client(servers.demo).chat_completion(
        [{"role": "user", "content": "Describe Paris in JSON."}],
        max_tokens=120,
        response_format={"type": "json_schema", "json_schema": {"name": "x", "schema": SCHEMA}},
    )

    choice = reply.choices[0]
    if choice.finish_reason == "stop":
        assert set(json.loads(choice.message.content)) == {"city", "age"}


def calls_a_tool(servers: Servers) -> None:
    messages = [{"role": "user", "content": "How is the weather in Rome?"}]

    reply = client(servers.demo).chat_completion(
        messages, tools=[TOOL], tool_choice="required", max_tokens=60, seed=3
    )
    call = reply.choices[0].message.tool_calls[0]
    messages += [
        {
            "role": "assistant",
            "tool_calls": [
                {
                    "id": call.id,
                    "type": "function",
                    "function": {"name": "weather", "arguments": call.function.arguments},
                }
            ],
        },
        {"role": "tool", "tool_call_id": call.id, "content": "sunny"},
    ]
    answer = client(servers.demo).chat_completion(messages, max_tokens=9)

    assert call.function.name == "weather"
    arguments = call.function.arguments
    arguments = json.loads(arguments) if isinstance(arguments, str) else arguments
    assert arguments["city"] in ("Paris", "Rome")
    assert answer.choices[0].message.content


def streams_a_tool_call(servers: Servers) -> None:
    stream = client(servers.demo).chat_completion(
        [{"role": "user", "content": "How is the weather in Rome?"}],
        tools=[TOOL],
        tool_choice="required",
        max_tokens=60,
        seed=3,
        stream=True,
    )

    calls = [chunk.choices[0].delta.tool_calls[0] for chunk in stream if chunk.choices]

    assert calls[0].function.name == "weather"
    arguments = json.loads("".join(call.function.arguments for call in calls))
    assert arguments["city"] in ("Paris", "Rome")


async def does_it_asynchronously(servers: Servers) -> None:
    async_client = AsyncInferenceClient(servers.demo, timeout=60)

    options = {"max_new_tokens": 5, "return_full_text": False}

    whole = await async_client.text_generation(PROMPT, **options)
    pieces = [
        piece async for piece in await async_client.text_generation(PROMPT, stream=True, **options)
    ]
    chat = await async_client.chat_completion(HELLO, max_tokens=5)

    assert "".join(pieces) == whole
    assert chat.choices[0].message.content
    with raises(OverloadedError):
        await AsyncInferenceClient(servers.full).text_generation(PROMPT)


if __name__ == "__main__":
    main(
        generates_text_and_details,
        knows_every_parameter,
        streams_text_and_details,
        guides_by_schema_and_by_pattern,
        raises_its_own_errors,
        brings_its_key,
        chats_and_streams_a_chat,
        chats_by_a_schema,
        calls_a_tool,
        streams_a_tool_call,
        does_it_asynchronously,
    )
