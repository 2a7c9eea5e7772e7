"""`text-generation` 0.7, TGI's own Python client, sync and async.

Its streamed chat isn't tried: it demands a `tool_calls` in every delta and can't read the end mark,
so it fails on TGI 3 as well.
"""

from __future__ import annotations

import json

from harness import Servers, main, raises
from text_generation import AsyncClient, Client
from text_generation.errors import GenerationError, OverloadedError, ValidationError
from text_generation.types import FinishReason, Grammar, GrammarType

PROMPT = "The capital of France is"
SCHEMA = {
    "type": "object",
    "properties": {"city": {"type": "string", "maxLength": 20}, "age": {"type": "integer"}},
    "required": ["city", "age"],
}


def client(url: str) -> Client:
    return Client(url, timeout=60)


def generates_with_all_details(servers: Servers) -> None:
    response = client(servers.demo).generate(
        PROMPT, max_new_tokens=7, decoder_input_details=True, top_n_tokens=2
    )

    assert "Paris" in response.generated_text
    details = response.details
    assert details.finish_reason is FinishReason.Length
    assert details.generated_tokens == len(details.tokens) == 7
    assert details.seed is None
    assert [token.logprob is None for token in details.prefill] == [
        True,
        False,
        False,
        False,
        False,
    ]
    assert details.top_tokens is not None
    assert all(len(best) >= 2 for best in details.top_tokens)
    assert [best[0].id for best in details.top_tokens] == [token.id for token in details.tokens]


def samples_the_same_twice_with_a_seed(servers: Servers) -> None:
    def text() -> str:
        return (
            client(servers.demo)
            .generate(PROMPT, do_sample=True, temperature=0.9, top_k=50, top_p=0.95, seed=7)
            .generated_text
        )

    assert text() == text()


def knows_every_parameter(servers: Servers) -> None:
    response = client(servers.demo).generate(
        PROMPT,
        do_sample=True,
        max_new_tokens=6,
        best_of=2,
        repetition_penalty=1.1,
        frequency_penalty=0.1,
        return_full_text=True,
        stop_sequences=["\n\n\n"],
        temperature=0.8,
        top_k=20,
        top_p=0.9,
        truncate=3,
        typical_p=0.9,
        watermark=True,
    )

    assert response.generated_text.startswith(PROMPT)
    assert response.details.best_of_sequences is not None
    assert len(response.details.best_of_sequences) == 1


def stops_at_a_stop_sequence(servers: Servers) -> None:
    response = client(servers.demo).generate(PROMPT, max_new_tokens=30, stop_sequences=["Paris"])

    assert response.generated_text.endswith("Paris")
    assert response.details.finish_reason is FinishReason.StopSequence


def guides_by_schema_and_by_pattern(servers: Servers) -> None:
    by_schema = client(servers.demo).generate(
        "Paris as JSON: ",
        max_new_tokens=80,
        grammar=Grammar(type=GrammarType.Json, value=SCHEMA),
    )
    by_pattern = client(servers.demo).generate(
        "My number: ", max_new_tokens=20, grammar=Grammar(type=GrammarType.Regex, value="[0-9]{3}")
    )

    if by_schema.details.finish_reason is FinishReason.EndOfSequenceToken:
        assert set(json.loads(by_schema.generated_text)) == {"city", "age"}
    assert by_pattern.generated_text.isdigit()
    assert len(by_pattern.generated_text) == 3


def streams_what_it_generates(servers: Servers) -> None:
    whole = client(servers.demo).generate(PROMPT, max_new_tokens=9)

    events = list(client(servers.demo).generate_stream(PROMPT, max_new_tokens=9))

    assert [event.token.id for event in events] == [token.id for token in whole.details.tokens]
    assert "".join(e.token.text for e in events if not e.token.special) == whole.generated_text
    assert events[-1].generated_text == whole.generated_text
    assert events[-1].details is not None
    assert events[-1].details.generated_tokens == 9


def raises_its_own_errors(servers: Servers) -> None:
    with raises(ValidationError, "`inputs` tokens"):
        client(servers.demo).generate("word " * 20_000)
    with raises(ValidationError, "`truncate` must be strictly positive and less than"):
        client(servers.demo).generate(PROMPT, truncate=1 << 30)
    with raises(ValidationError, "`truncate` must be strictly positive and less than"):
        list(client(servers.demo).generate_stream(PROMPT, truncate=1 << 30))
    with raises(OverloadedError, "Model is overloaded"):
        client(servers.full).generate(PROMPT)
    with raises(OverloadedError, "Model is overloaded"):
        list(client(servers.full).generate_stream(PROMPT))
    with raises(GenerationError, "Request failed during generation"):
        client(servers.failing).generate(PROMPT)
    with raises(GenerationError, "Request failed during generation"):
        list(client(servers.failing).generate_stream(PROMPT))


def brings_its_key(servers: Servers) -> None:
    key = {"Authorization": f"Bearer {servers.api_key}"}

    assert Client(servers.keyed, headers=key).generate(PROMPT, max_new_tokens=2).generated_text


def chats(servers: Servers) -> None:
    reply = client(servers.demo).chat(
        [{"role": "user", "content": "Say hello."}],  # type: ignore[list-item]
        max_tokens=8,
        seed=3,
        temperature=0.5,
        logprobs=True,
        top_logprobs=2,
    )

    assert reply.object == "chat.completion"
    assert reply.choices[0].message.content
    assert len(reply.choices[0].logprobs["content"][0]["top_logprobs"]) >= 2


def calls_a_tool(servers: Servers) -> None:
    parameters = {"type": "object", "properties": {"city": {"enum": ["Paris", "Rome"]}}}
    parameters["required"] = ["city"]
    tool = {"type": "function", "function": {"name": "weather", "parameters": parameters}}

    reply = client(servers.demo).chat(
        [{"role": "user", "content": "How is the weather in Rome?"}],  # type: ignore[list-item]
        max_tokens=60,
        seed=3,
        tools=[tool],  # type: ignore[list-item]
        tool_choice="weather",
    )

    call = reply.choices[0].message.tool_calls[0]
    assert call["function"]["name"] == "weather"
    assert json.loads(call["function"]["arguments"])["city"] in ("Paris", "Rome")


async def does_it_all_asynchronously(servers: Servers) -> None:
    whole = await AsyncClient(servers.demo, timeout=60).generate(PROMPT, max_new_tokens=5)
    events = [
        event
        async for event in AsyncClient(servers.demo, timeout=60).generate_stream(
            PROMPT, max_new_tokens=5
        )
    ]

    assert events[-1].generated_text == whole.generated_text
    with raises(OverloadedError):
        await AsyncClient(servers.full).generate(PROMPT)


if __name__ == "__main__":
    main(
        generates_with_all_details,
        samples_the_same_twice_with_a_seed,
        knows_every_parameter,
        stops_at_a_stop_sequence,
        guides_by_schema_and_by_pattern,
        streams_what_it_generates,
        raises_its_own_errors,
        brings_its_key,
        chats,
        calls_a_tool,
        does_it_all_asynchronously,
    )
