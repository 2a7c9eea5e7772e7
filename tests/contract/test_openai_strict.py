"""`--openai-strict`: OpenAI's words and statuses where TGI's differ (spec/http-api.md 5.2, 16)."""

from __future__ import annotations

import pytest

from tests.builders.router import ids_of, script_for, serving

COMPLETION = ("/v1/completions", {"prompt": "x", "temperature": 0})
CHAT = (
    "/v1/chat/completions",
    {"messages": [{"role": "user", "content": "x"}], "temperature": 0},
)
ROUTES = pytest.mark.parametrize(("url", "body"), [COMPLETION, CHAT], ids=["completions", "chat"])


@ROUTES
async def test_a_stop_string_is_a_stop(url, body):
    async with serving(script_for("abcd"), openai_strict=True) as client:
        body = {**body, "stop": ["cd"]}
        _, _, reply = await client.post(url, body)
        *chunks, done = await client.stream(url, {**body, "stream": True})

    assert reply["choices"][0]["finish_reason"] == "stop"
    reasons = [chunk["choices"][0]["finish_reason"] for chunk in chunks]
    assert reasons == [None] * (len(chunks) - 1) + ["stop"]
    assert done == "[DONE]"


async def test_usage_is_in_a_stream_only_where_it_was_asked_for():
    url, body = COMPLETION
    body = {**body, "max_tokens": 2, "stream": True}
    async with serving(openai_strict=True) as client:
        without = await client.stream(url, body)
        asked = await client.stream(url, {**body, "stream_options": {"include_usage": True}})

    assert all("usage" not in chunk for chunk in without[:-1])
    assert [chunk["usage"] for chunk in asked[:-2]] == [None, None]
    assert asked[-2]["choices"] == []
    assert asked[-2]["usage"] == {"prompt_tokens": 1, "completion_tokens": 2, "total_tokens": 3}


async def test_the_stop_string_is_left_out_of_a_completion_and_of_its_stream():
    url, body = COMPLETION
    body = {**body, "stop": ["cd"], "echo": True}
    async with serving(script_for("abced" + "abcd"), openai_strict=True) as client:
        _, _, reply = await client.post(url, body)
        *chunks, _ = await client.stream(url, {**body, "stream": True})

    assert reply["choices"][0]["text"] == "xabcedab"
    texts = [chunk["choices"][0]["text"] for chunk in chunks]
    assert texts == ["xa", "b", "", "ce", "d", "a", "b", "", ""]


@ROUTES
@pytest.mark.parametrize("stream", [False, True])
async def test_refusals_have_their_status_and_openais_error_object(url, body, stream):
    body = {**body, "stream": stream}
    async with serving(openai_strict=True) as client:
        invalid = await client.post(url, {**body, "temperature": -1})
        malformed = await client.post(url, {**body, "temperature": "hot"})
        assert await client.metric("tgi_requests_running") == 0
    async with serving(openai_strict=True, limits={"max_concurrent_requests": 0}) as client:
        overloaded = await client.post(url, body)

    assert invalid[0] == 422
    assert invalid[2] == {
        "error": {
            "message": "Input validation error: `temperature` must be strictly positive",
            "type": "invalid_request_error",
            "param": "temperature",
            "code": "validation",
        }
    }
    assert malformed[0] == 422
    assert malformed[2]["error"]["type"] == "invalid_request_error"
    assert malformed[2]["error"]["code"] is None
    assert overloaded[0] == 429
    assert overloaded[2]["error"] == {
        "message": "Model is overloaded",
        "type": "rate_limit_error",
        "param": None,
        "code": "overloaded",
    }


@ROUTES
async def test_an_engine_failure_in_a_stream_is_openais_error_object(url, body):
    num_tokens = len(ids_of("x"))
    body = {**body, "stream": True}
    if "messages" in body:
        num_tokens = len(ids_of("<|user|>x<|end|><|assistant|>"))
    async with serving(script_for("ab", fail_prompts_of=num_tokens), openai_strict=True) as client:
        events = await client.stream(url, body)
        failures = await client.metric('tgi_request_failure{err="generation"}')
        dropped = await client.metric('tgi_request_failure{err="dropped"}')

    assert events == [
        {
            "error": {
                "message": "Request failed during generation: Server error: as scripted",
                "type": "server_error",
                "param": None,
                "code": "generation",
            }
        },
        "[DONE]",
    ]
    assert (failures, dropped) == (1, 0)
