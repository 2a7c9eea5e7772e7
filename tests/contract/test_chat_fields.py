"""What fields of a chat do, and what its replies hold: spec/http-api.md 10.1, 10.4 and 10.5."""

from __future__ import annotations

import itertools

import pytest

from tests.builders.router import answering, ids_of, serving
from tests.builders.tokenizers import END, beginning_tokenizer
from tgi_cli.runtime.router.routes import openai

ROUTE = "/v1/chat/completions"
USER = {"role": "user", "content": "Hi"}
CHAT = {"messages": [USER], "temperature": 0}
PROMPT = f"<|user|>Hi{END}<|assistant|>"


@pytest.mark.parametrize(
    ("body", "samples", "temperature"),
    [
        ({"temperature": 0}, False, 1.0),
        ({"temperature": 0.0, "top_p": 0.5, "top_k": 3}, False, 1.0),
        ({}, True, 1.0),
        ({"temperature": 0.5}, True, 0.5),
    ],
)
async def test_temperature_zero_is_greedy_and_none_is_one(body, samples, temperature):
    async with serving() as client:
        requests = client.record_requests()
        await client.post(ROUTE, {"messages": [USER], **body})

    sampling = requests[0].sampling
    assert (sampling.do_sample, sampling.temperature) == (samples, temperature)


async def test_without_a_length_a_chat_may_fill_what_is_left():
    async with serving(limits={"max_input_tokens": 90, "max_total_tokens": 100}) as client:
        requests = client.record_requests()
        _, _, reply = await client.post(ROUTE, CHAT)

    num_prompt = len(ids_of(PROMPT))
    assert requests[0].max_new_tokens == 100 - num_prompt
    assert reply["usage"]["completion_tokens"] == 100 - num_prompt
    assert reply["choices"][0]["finish_reason"] == "length"


async def test_fields_that_mean_nothing_here_are_ignored():
    extra = {
        "user": "me", "metadata": {"a": "b"}, "store": True, "service_tier": "auto",
        "parallel_tool_calls": True, "reasoning_effort": "low", "modalities": ["text"],
    }  # fmt: skip
    async with serving(answering("Hello")) as client:
        status, _, reply = await client.post(ROUTE, {**CHAT, **extra})

    assert status == 200, reply
    assert reply["choices"][0]["message"]["content"] == "Hello"


@pytest.mark.parametrize("messages", [{}, {"messages": None}, {"messages": "Hi"}])
async def test_a_chat_needs_a_list_of_messages(messages):
    async with serving() as client:
        status, headers, text = await client.post(ROUTE, {"max_tokens": 3, **messages})

    assert status == 422
    assert headers["content-type"].startswith("text/plain")
    assert "messages" in text


async def test_no_special_tokens_are_added_to_what_the_template_wrote():
    async with serving(assets=beginning_tokenizer()) as client:
        requests = client.record_requests()
        await client.post("/generate", {"inputs": "Hi"})
        await client.post(ROUTE, CHAT)
        _, _, shown = await client.post("/chat_tokenize", {"messages": [USER]})

    generate, chat = (request.prompt_ids for request in requests)
    assert generate == [*ids_of(END), *ids_of("Hi")]
    assert chat == list(ids_of(PROMPT))
    assert [token["id"] for token in shown["tokenize_response"]] == chat


@pytest.mark.parametrize(
    ("stop", "text", "reason"), [(["zz", "lo"], "Hello", "stop_sequence"), ([], "Hello wo", "stop")]
)
async def test_a_list_of_stop_strings_ends_the_text(stop, text, reason):
    async with serving(answering("Hello wo")) as client:
        _, _, reply = await client.post(ROUTE, {**CHAT, "stop": stop})
        *events, _ = await client.stream(ROUTE, {**CHAT, "stop": stop, "stream": True})

    [choice] = reply["choices"]
    assert (choice["message"]["content"], choice["finish_reason"]) == (text, reason)
    assert "".join(e["choices"][0]["delta"]["content"] for e in events) == text
    assert [e["choices"][0]["finish_reason"] for e in events] == [None] * (len(events) - 1) + [
        reason
    ]


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"stop": ["a", "b", "c", "d", "e"]}, "`stop` supports up to 4 stop sequences. Given: 5"),
        ({"max_tokens": 0}, "`max_new_tokens` must be strictly positive"),
        ({"presence_penalty": -2.1}, "`presence_penalty` must be >= -2.0 and <= 2.0"),
        ({"frequency_penalty": 2.1}, "`frequency_penalty` must be >= -2.0 and <= 2.0"),
        ({"top_p": 0.0, "temperature": 1}, "`top_p` must be > 0.0 and < 1.0"),
        ({"max_tokens": 99}, "`inputs` tokens + `max_new_tokens` must be <= 100. Given: "),
    ],
)
async def test_the_limits_and_texts_are_those_of_generate(change, text):
    async with serving() as client:
        status, _, reply = await client.post(ROUTE, {**CHAT, **change})
        error, done = await client.stream(ROUTE, {**CHAT, **change, "stream": True})

    assert (status, reply["error_type"]) == (422, "validation")
    assert reply["error"].startswith(f"Input validation error: {text}")
    assert error["error"] == {"message": reply["error"], "http_status_code": 422}
    assert done == "[DONE]"


async def test_a_presence_penalty_of_zero_is_none():
    async with serving() as client:
        requests = client.record_requests()
        await client.post(ROUTE, {**CHAT, "presence_penalty": 0})

    sampling = requests[0].sampling
    assert (sampling.presence_penalty, sampling.repetition_penalty) == (0.0, 1.0)


async def test_every_chunk_tells_when_it_was_made(monkeypatch):
    times = itertools.count(1_700_000_000)
    monkeypatch.setattr(openai, "now", lambda: next(times))
    async with serving(answering("abc")) as client:
        *events, _ = await client.stream(ROUTE, {**CHAT, "stream": True})

    made = [event["created"] for event in events]
    assert made == list(range(made[0], made[0] + len(events)))


async def test_a_chat_counts_its_tokens_and_tells_them_in_its_headers():
    async with serving(answering("Hello")) as client:
        _, headers, reply = await client.post(ROUTE, CHAT)
        async with client.session.post(client.url + ROUTE, json={**CHAT, "stream": True}) as stream:
            stream_headers = stream.headers

    num_prompt, num_new = len(ids_of(PROMPT)), len(ids_of("Hello")) + 1  # the end token counts
    assert reply["usage"]["prompt_tokens"] == num_prompt
    assert reply["usage"]["completion_tokens"] == num_new
    assert headers["x-prompt-tokens"] == str(num_prompt)
    assert headers["x-generated-tokens"] == str(num_new)
    assert headers["x-compute-characters"] == str(len(PROMPT))
    assert stream_headers["content-type"].startswith("text/event-stream")


async def test_a_schema_is_not_added_to_the_prompt():
    schema = {"type": "object", "properties": {"a": {"type": "integer"}}}
    forms = [
        {"type": "json", "value": schema},
        {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}},
        {"type": "json_object"},
        {"type": "regex", "value": "a"},
    ]
    async with serving() as client:
        requests = client.record_requests()
        for form in forms:
            await client.post(ROUTE, {**CHAT, "max_tokens": 2, "response_format": form})

    assert len(requests) == len(forms)
    assert {tuple(request.prompt_ids) for request in requests} == {ids_of(PROMPT)}
