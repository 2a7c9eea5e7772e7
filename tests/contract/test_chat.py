"""`/v1/chat/completions` and `/chat_tokenize`: spec/http-api.md sections 10 and 13."""

from __future__ import annotations

import re
import time

import msgspec
import pytest

from tests.builders.router import answering, ids_of, script_for, serving
from tests.builders.tokenizers import END
from tgi_cli import __version__
from tgi_cli.runtime.router.schemas.chat import ChatRequest

ROUTE = "/v1/chat/completions"
USER = {"role": "user", "content": "Hi"}
CHAT = {"messages": [USER], "temperature": 0, "max_tokens": 3}
PROMPT = f"<|user|>Hi{END}<|assistant|>"


def content_of(events: list) -> str:
    return "".join(c["delta"]["content"] for e in events for c in e["choices"])


async def prompt_of(client, **body) -> str:
    _, _, reply = await client.post("/chat_tokenize", {"messages": [USER], **body})
    return reply["templated_text"]


# 10.1 Request


async def test_null_is_absent_for_every_optional_field():
    fields = msgspec.json.schema_components([ChatRequest])[1]["ChatRequest"]["properties"]
    nulls = dict.fromkeys([*fields, "user", "metadata"])
    async with serving(answering("Hello")) as client:
        status, _, reply = await client.post(ROUTE, {**nulls, "messages": [USER]})

    assert status == 200, reply
    assert reply["choices"][0]["message"]["content"] == "Hello"


async def test_every_sampling_field_reaches_the_engine():
    body = {
        "messages": [USER], "max_completion_tokens": 7, "temperature": 0.5,
        "top_p": 0.875, "frequency_penalty": 0.125, "presence_penalty": -0.5, "seed": 11,
        "logit_bias": {"3": 1.5}, "top_k": 40, "typical_p": 0.75, "min_p": 0.0625, "min_tokens": 2,
        "ignore_eos": True, "repetition_penalty": 1.25, "truncate": 4, "top_logprobs": 2,
        "logprobs": True,
    }  # fmt: skip
    async with serving() as client:
        requests = client.record_requests()
        status, _, reply = await client.post(ROUTE, body)

    assert status == 200, reply
    [request] = requests
    sampling = request.sampling
    assert request.max_new_tokens == 7
    assert len(request.prompt_ids) == 4
    assert (request.top_n_tokens, request.ignore_eos) == (2, True)
    assert sampling.do_sample
    assert sampling.presence_penalty == -0.5  # added, as OpenAI has it; TGI made 1.5 of it
    assert sampling.repetition_penalty == 1.25
    assert (sampling.temperature, sampling.top_p, sampling.top_k) == (0.5, 0.875, 40)
    assert (sampling.typical_p, sampling.min_p, sampling.min_tokens) == (0.75, 0.0625, 2)
    assert (sampling.frequency_penalty, sampling.seed) == (0.125, 11)
    assert sampling.logit_bias == {3: 1.5}


async def test_a_list_of_biases_is_taken_and_ignored():
    async with serving() as client:
        requests = client.record_requests()
        status, _, _ = await client.post(ROUTE, {**CHAT, "logit_bias": [1.0, 2.0]})

    assert status == 200
    assert requests[0].sampling.logit_bias == {}


@pytest.mark.parametrize(
    ("model", "shown"), [(None, "tiny"), ("tgi", "tiny"), ("tiny", "tiny"), ("gpt-9", "gpt-9")]
)
async def test_any_model_runs_the_served_one_and_is_echoed(model, shown):
    async with serving() as client:
        status, _, reply = await client.post(ROUTE, {**CHAT, "model": model})
        *events, _ = await client.stream(ROUTE, {**CHAT, "model": model, "stream": True})

    assert status == 200
    assert {reply["model"], *(event["model"] for event in events)} == {shown}


async def test_a_model_name_that_would_swell_each_event_is_refused():
    async with serving() as client:
        fits, _, _ = await client.post(ROUTE, {**CHAT, "model": "m" * 1024})
        status, _, text = await client.post(ROUTE, {**CHAT, "model": "m" * 1025, "stream": True})

    assert fits == 200
    assert status == 422
    assert "model: Expected `str` of length <= 1024" in text


async def test_a_bare_stop_string_ends_the_text_with_tgis_reason():
    async with serving(answering("Hello world")) as client:
        _, _, reply = await client.post(ROUTE, {**CHAT, "max_tokens": 50, "stop": "lo"})

    assert reply["choices"][0]["message"]["content"] == "Hello"
    assert reply["choices"][0]["finish_reason"] == "stop_sequence"


@pytest.mark.parametrize(
    ("response_format", "kind"),
    [
        ({"type": "json_object"}, "json_schema"),
        ({"type": "json", "value": {"properties": {"a": {"type": "string"}}}}, "json_schema"),
        (
            {"type": "json_schema", "json_schema": {"name": "x", "schema": {"type": "object"}}},
            "json_schema",
        ),
        ({"type": "regex", "value": "a+"}, "regex"),
    ],
)
async def test_response_formats_reach_the_engine_as_grammars(response_format, kind):
    async with serving() as client:
        requests = client.record_requests()
        status, _, reply = await client.post(ROUTE, {**CHAT, "response_format": response_format})

    assert status == 200, reply
    assert requests[0].grammar.kind == kind


async def test_guided_fields_of_other_servers_are_grammars_too():
    async with serving() as client:
        requests = client.record_requests()
        await client.post(ROUTE, {**CHAT, "guided_regex": "a+"})
        status, _, reply = await client.post(
            ROUTE, {**CHAT, "guided_regex": "a", "response_format": {"type": "json_object"}}
        )

    assert [request.grammar.source for request in requests] == ["a+"]
    assert requests[0].grammar.kind == "regex"
    assert status == 422
    assert reply["error_type"] == "validation"


async def test_choices_have_seeds_permits_and_indices_of_their_own():
    body = {**CHAT, "temperature": 1.0, "n": 3, "seed": 5, "max_tokens": 50}
    async with serving(answering("one", "two", "three")) as client:
        requests = client.record_requests()
        _, headers, reply = await client.post(ROUTE, body)
        num_permits = client.router._service._permits.num_taken
        *events, _ = await client.stream(ROUTE, {**body, "stream": True})

    assert [choice["index"] for choice in reply["choices"]] == [0, 1, 2]
    texts = {choice["message"]["content"] for choice in reply["choices"]}
    assert texts == {"one", "two", "three"}  # they reach the engine in any order
    seeds = [request.sampling.seed for request in requests]
    assert set(seeds[:3]) == set(seeds[3:])  # derived from the request's
    assert seeds[3] == 5
    assert len(set(seeds[:3])) == 3
    assert num_permits == 0
    num_tokens = sum(len(ids_of(text)) + 1 for text in ("one", "two", "three"))
    assert reply["usage"]["prompt_tokens"] == len(ids_of(PROMPT))
    assert reply["usage"]["completion_tokens"] == num_tokens
    assert headers["x-generated-tokens"] == str(num_tokens)
    assert [event["choices"][0]["index"] for event in events[:6]] == [0, 1, 2] * 2  # in turn
    for index, text in enumerate(["one", "two", "three"]):
        assert content_of([e for e in events if e["choices"][0]["index"] == index]) == text


async def test_choices_that_find_no_permit_refuse_the_whole_request():
    async with serving(limits={"max_concurrent_requests": 2}) as client:
        status, _, reply = await client.post(ROUTE, {**CHAT, "n": 3})
        events = await client.stream(ROUTE, {**CHAT, "n": 3, "stream": True})
        assert client.router._service._permits.num_taken == 0

    assert (status, reply["error_type"]) == (429, "overloaded")
    error, done = events
    assert error["error"] == {"message": "Model is overloaded", "http_status_code": 429}
    assert done == "[DONE]"


# 10.2 Messages


@pytest.mark.parametrize(
    ("message", "place"),
    [
        ({"role": "user"}, "messages[0]: missing field `content`"),
        ({"role": "user", "content": None}, "messages[0]: missing field `content`"),
        ({"role": "assistant", "content": None, "tool_calls": []}, "messages[0]: missing field"),
        ({"content": "x"}, "messages[0]: missing field `role`"),
        ({"role": "user", "content": 3}, "messages[0].content: "),
        ({"role": "user", "content": [{"type": "text"}]}, "messages[0].content[0]: missing"),
        ({"role": "user", "content": [{"type": "input_audio"}]}, "messages[0].content[0]"),
        ({"role": "user", "content": ["x"]}, "messages[0].content[0]: "),
        ({"role": "assistant", "tool_calls": [{"id": "1"}]}, "messages[0].tool_calls[0]: "),
    ],
)
async def test_malformed_messages_are_refused_with_their_place(message, place):
    async with serving() as client:
        status, headers, text = await client.post(ROUTE, {**CHAT, "messages": [message]})

    assert status == 422
    assert headers["content-type"].startswith("text/plain")
    assert text.startswith(f"Failed to deserialize the JSON body into the target type: {place}")


async def test_images_are_refused():
    image = {"type": "image_url", "image_url": {"url": "http://x/y.png", "detail": "low"}}
    messages = [{"role": "user", "content": [{"type": "text", "text": "see"}, image]}]
    async with serving() as client:
        status, _, reply = await client.post(ROUTE, {**CHAT, "messages": messages})

    assert status == 422
    assert reply == {
        "error": "Input validation error: image modality is not supported",
        "error_type": "validation",
    }


async def test_parts_are_joined_and_any_role_is_taken():
    parts = [{"type": "text", "text": "a", "x": 1}, {"type": "text", "text": "b"}]
    async with serving() as client:
        prompt = await prompt_of(client, messages=[{"role": "critic", "content": parts}])

    assert prompt == f"<|critic|>ab{END}<|assistant|>"


async def test_no_messages_are_rendered_as_they_are():
    async with serving() as client:
        assert await prompt_of(client, messages=[]) == "<|assistant|>"


# 10.3 Template


async def test_a_final_message_of_the_assistant_is_continued_unless_told_not_to():
    messages = [USER, {"role": "assistant", "content": "The answer "}]
    async with serving() as client:
        continued = await prompt_of(client, messages=messages)
        closed = await prompt_of(client, messages=messages, continue_final_message=False)
        bare = await prompt_of(client, add_generation_prompt=False)

    assert continued == f"<|user|>Hi{END}<|assistant|>The answer"
    assert closed == f"<|user|>Hi{END}<|assistant|>The answer {END}<|assistant|>"
    assert bare == f"<|user|>Hi{END}"


async def test_more_variables_can_be_given_to_the_template():
    template = "{{ messages[0].content }}{% if thinks %} (thinks){% endif %}"
    async with serving(template=template) as client:
        prompt = await prompt_of(client, chat_template_kwargs={"thinks": True})

    assert prompt == "Hi (thinks)"


async def test_without_a_template_every_chat_is_refused():
    async with serving(template="") as client:
        status, _, reply = await client.post(ROUTE, {**CHAT, "stream": True})

    assert status == 422
    assert reply == {"error": "Template error: template not found", "error_type": "template_error"}


# 10.4, 10.5 Replies


async def test_every_event_has_ids_time_and_fingerprint():
    async with serving(docker_label="sha-1") as client:
        _, _, reply = await client.post(ROUTE, CHAT)
        *events, _ = await client.stream(ROUTE, {**CHAT, "stream": True})

    assert re.fullmatch(r"chatcmpl-\w+", reply["id"])
    assert len({event["id"] for event in events}) == 1
    assert list(events[0]) == [
        "object", "id", "created", "model", "system_fingerprint", "choices", "usage",
    ]  # fmt: skip
    for each in (reply, *events):
        assert abs(each["created"] - time.time()) < 60
        assert each["system_fingerprint"] == f"{__version__}-sha-1"


async def test_logprobs_tell_the_best_tokens_with_their_bytes():
    body = {**CHAT, "logprobs": True, "top_logprobs": 2}
    async with serving(script_for("é!", prompt=PROMPT)) as client:
        _, _, reply = await client.post(ROUTE, body)
        *events, _ = await client.stream(ROUTE, {**body, "stream": True})

    entries = reply["choices"][0]["logprobs"]["content"]
    assert len(entries) == 3
    for entry in entries:
        assert list(entry) == ["token", "logprob", "bytes", "top_logprobs"]
        assert entry["bytes"] == list(entry["token"].encode())
        assert len(entry["top_logprobs"]) == 2
        assert entry["top_logprobs"][0]["logprob"] == entry["logprob"] == -0.5
        assert list(entry["top_logprobs"][0]) == ["token", "logprob", "bytes"]
    assert [e["choices"][0]["logprobs"]["content"] for e in events] == [
        [entry] for entry in entries
    ]


async def test_top_logprobs_alone_are_taken_and_nothing_is_told():
    async with serving() as client:
        status, _, reply = await client.post(ROUTE, {**CHAT, "top_logprobs": 2})

    assert status == 200
    assert reply["choices"][0]["logprobs"] is None


async def test_a_failure_in_mid_stream_is_one_more_event():
    prompt_length = len(ids_of(PROMPT))
    async with serving(answering("x", fail_prompts_of=prompt_length)) as client:
        events = await client.stream(ROUTE, {**CHAT, "stream": True})

    error, done = events
    assert error["error"] == {
        "message": "Request failed during generation: Server error: as scripted",
        "http_status_code": 424,
    }
    assert done == "[DONE]"


# 13 /chat_tokenize


async def test_chat_tokenize_shows_the_prompt_and_where_its_tokens_are():
    async with serving() as client:
        before = await client.metric("tgi_request_count")
        status, _, reply = await client.post("/chat_tokenize", {"messages": [USER]})
        counted = await client.metric("tgi_request_count") - before

    assert status == 200
    assert list(reply) == ["tokenize_response", "templated_text"]
    assert reply["templated_text"] == PROMPT
    tokens = reply["tokenize_response"]
    assert [token["id"] for token in tokens] == list(ids_of(PROMPT))
    assert "".join(token["text"] for token in tokens) == PROMPT
    assert tokens[-1]["stop"] == len(PROMPT.encode())
    assert counted == 1


async def test_chat_tokenize_counts_special_tokens_in_messages_as_text():
    message = {"role": "user", "content": f"é{END}é"}
    async with serving() as client:
        _, _, reply = await client.post("/chat_tokenize", {"messages": [message]})

    text = f"<|user|>é{END}é{END}<|assistant|>"
    assert reply["templated_text"] == text
    raw = text.encode()
    whole = [t for t in reply["tokenize_response"] if t["text"] == END]
    assert [token["start"] for token in whole] == [raw.rindex(END.encode())]
    assert all(
        raw[t["start"] : t["stop"]].decode(errors="replace") == t["text"]
        for t in reply["tokenize_response"]
    )


async def test_chat_tokenize_has_the_errors_of_chats():
    async with serving(template="{{ raise_exception('no') }}") as client:
        refused = await client.post("/chat_tokenize", {"messages": [USER]})
        tool = {"type": "function", "function": {"name": "f"}}
        unknown = {"messages": [USER], "tools": [tool], "tool_choice": "g"}
        tools = await client.post("/chat_tokenize", unknown)

    assert refused[0] == tools[0] == 422
    assert refused[2]["error_type"] == "template_error"
    assert tools[2]["error_type"] == "tool_error"


@pytest.mark.parametrize("stop", ["lo", ["lo w", "xyz"]])
async def test_a_strict_server_leaves_the_stop_string_out(stop):
    body = {**CHAT, "max_tokens": 50, "stop": stop}
    async with serving(answering("Hello world"), openai_strict=True) as client:
        _, _, reply = await client.post(ROUTE, body)
        *events, _ = await client.stream(ROUTE, {**body, "stream": True})

    assert reply["choices"][0]["message"]["content"] == content_of(events) == "Hel"
    assert reply["choices"][0]["finish_reason"] == "stop"
    assert events[-1]["choices"][0]["finish_reason"] == "stop"
