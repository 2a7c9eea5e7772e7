"""`/v1/chat/completions` and `/v1/completions`: spec/http-api.md sections 9 and 10."""

from __future__ import annotations

import pytest

from tests.builders.router import ids_of, script_for, serving
from tests.builders.tokenizers import END

CHAT = {"messages": [{"role": "user", "content": "Hi"}], "temperature": 0}
CHAT_PROMPT = f"<|user|>Hi{END}<|assistant|>"


async def test_a_chat_reply_has_the_documented_shape():
    async with serving(script_for("Hello", end=True, prompt=CHAT_PROMPT)) as client:
        status, headers, reply = await client.post(
            "/v1/chat/completions", {**CHAT, "logprobs": True}
        )

    assert status == 200
    assert list(reply) == [
        "object", "id", "created", "model", "system_fingerprint", "choices", "usage",
    ]  # fmt: skip
    assert reply["object"] == "chat.completion"
    assert reply["model"] == "tiny"
    [choice] = reply["choices"]
    assert choice["message"] == {"role": "assistant", "content": "Hello"}
    assert choice["finish_reason"] == "stop"
    assert choice["logprobs"]["content"][-1]["token"] == END
    num_prompt, num_new = len(ids_of(CHAT_PROMPT)), len(ids_of("Hello")) + 1
    assert reply["usage"] == {
        "prompt_tokens": num_prompt,
        "completion_tokens": num_new,
        "total_tokens": num_prompt + num_new,
    }
    assert headers["x-compute-characters"] == str(len(CHAT_PROMPT))


async def test_a_chat_stream_ends_with_reason_usage_and_mark():
    async with serving(script_for("Hello", end=True, prompt=CHAT_PROMPT)) as client:
        body = {**CHAT, "stream": True, "stream_options": {"include_usage": True}}
        *chunks, usage, done = await client.stream("/v1/chat/completions", body)

    assert done == "[DONE]"
    deltas = [chunk["choices"][0]["delta"] for chunk in chunks]
    assert all(delta["role"] == "assistant" for delta in deltas)
    assert "".join(delta["content"] for delta in deltas) == "Hello"
    assert deltas[-1]["content"] == ""  # the end token
    reasons = [chunk["choices"][0]["finish_reason"] for chunk in chunks]
    assert reasons == [None] * (len(chunks) - 1) + ["stop"]
    assert all(chunk["usage"] is None for chunk in chunks)
    assert usage["choices"] == []
    assert usage["usage"]["completion_tokens"] == len(chunks)


async def test_null_stream_options_and_content_parts_are_accepted():
    body = {
        "messages": [{"role": "user", "content": [{"type": "text", "text": "Hi"}]}],
        "stream_options": None,
        "max_tokens": 5,
        "max_completion_tokens": 2,
        "stop": "zzz",
        "tools": [],
        "model": "anything",
    }
    async with serving() as client:
        status, _, reply = await client.post("/v1/chat/completions", body)

    assert status == 200
    assert reply["model"] == "anything"
    assert reply["usage"]["completion_tokens"] == 2


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"temperature": -1}, "`temperature` must be strictly positive"),
        ({"top_logprobs": 6}, "`top_n_tokens` must be >= 0 and <= 5. Given: 6"),
        ({"n": 0}, "`n` must be > 0 and <= 4. Given: 0"),
        ({"n": 5}, "`n` must be > 0 and <= 4. Given: 5"),
        ({"truncate": 0}, "`truncate` must be strictly positive"),
        ({"chat_template_kwargs": {"messages": []}}, "`chat_template_kwargs` can't set `messages`"),
    ],
)
async def test_what_is_out_of_range_is_refused_by_name(change, text):
    async with serving() as client:
        status, _, reply = await client.post("/v1/chat/completions", {**CHAT, **change})

    assert status == 422
    assert reply["error"].startswith(f"Input validation error: {text}")


async def test_a_template_error_keeps_its_status_on_a_stream():
    async with serving() as client:
        messages = [{"role": "user", "content": "x"}] * 2
        client.router._service.chat_template._templates = {"default": "{{ raise_exception('no') }}"}
        status, _, reply = await client.post(
            "/v1/chat/completions", {"messages": messages, "stream": True}
        )
        failures = await client.metric('tgi_request_failure{err="template"}')

    assert status == 422
    assert reply["error_type"] == "template_error"
    assert failures == 1


async def test_an_overloaded_chat_stream_says_so_and_ends():
    async with serving(limits={"max_concurrent_requests": 0}) as client:
        events = await client.stream("/v1/chat/completions", {**CHAT, "stream": True})

    assert events == [
        {
            "error": {"message": "Model is overloaded", "http_status_code": 429},
            "error_type": "overloaded",
        },
        "[DONE]",
    ]


async def test_a_special_token_in_a_message_is_text():
    content = f"a{END}b"
    body = {**CHAT, "messages": [{"role": "user", "content": content}], "max_tokens": 1}
    async with serving() as client:
        _, headers, reply = await client.post("/v1/chat/completions", body)

    template_tokens = len(ids_of(CHAT_PROMPT)) - len(ids_of("Hi"))
    spelled = len(ids_of("a")) + len(ids_of(END[:-1])) + len(ids_of(">b"))
    assert reply["usage"]["prompt_tokens"] == template_tokens + spelled
    assert headers["x-compute-characters"] == str(len(CHAT_PROMPT) - len("Hi") + len(content))
