"""`/v1/completions` beside what `test_completions.py` has: spec/http-api.md section 9."""

from __future__ import annotations

import time

import pytest

from tests.builders.router import answering, ids_of, script_for, serving
from tgi_cli import __version__
from tgi_cli.runtime.text.tokenizer import Tokenizer

URL = "/v1/completions"


async def test_fields_that_mean_nothing_here_are_ignored():
    ignored = {"user": "u", "logit_bias": [0.5], "metadata": {"a": 1}, "best_of": 1, "x": [{}]}
    async with serving(script_for("ab")) as client:
        body = {"prompt": "x", "max_tokens": 2, "temperature": 0}
        _, _, plain = await client.post(URL, body)
        status, _, reply = await client.post(URL, body | ignored)

    assert status == 200
    assert reply["choices"] == plain["choices"]


async def test_without_max_tokens_as_many_come_as_fit():
    async with serving() as client:
        for max_tokens in ({}, {"max_tokens": None}):
            _, _, reply = await client.post(URL, {"prompt": "x", **max_tokens})
            assert reply["usage"]["total_tokens"] == 100


@pytest.mark.parametrize("temperature", [None, 0, 0.5])
async def test_a_top_p_of_1_is_off(temperature):
    body = {"prompt": "x", "max_tokens": 1, "temperature": temperature, "top_p": 1.0}
    async with serving() as client:
        requests = client.record_requests()
        status, _, _ = await client.post(URL, body)

    assert status == 200
    assert requests[0].sampling.top_p == 1.0
    assert requests[0].sampling.do_sample == (temperature != 0)


@pytest.mark.parametrize(("suffix", "status"), [("", 422), ("y", 422), (None, 200)])
@pytest.mark.parametrize("stream", [False, True])
async def test_any_suffix_is_refused_with_its_status(suffix, status, stream):
    async with serving() as client:
        body = {"prompt": ["x"], "suffix": suffix, "max_tokens": 1, "stream": stream}
        found, _, reply = await client.post(URL, body)

    assert found == status
    if status == 422:
        assert reply["error_type"] == "suffix not supported"


async def test_the_tokenizer_adds_its_special_tokens_to_prompts_and_not_to_chats(monkeypatch):
    adds: list[bool] = []
    encode = Tokenizer.encode

    def note_and_encode(self: Tokenizer, text: str, *, add_special_tokens: bool) -> list[int]:
        adds.append(add_special_tokens)
        return encode(self, text, add_special_tokens=add_special_tokens)

    async with serving() as client:
        monkeypatch.setattr(Tokenizer, "encode", note_and_encode)
        await client.post(URL, {"prompt": "x", "max_tokens": 1})
        await client.post("/generate", {"inputs": "x", "parameters": {"max_new_tokens": 1}})
        chat = {"messages": [{"role": "user", "content": "x"}], "max_tokens": 1}
        await client.post("/v1/chat/completions", chat)

    assert adds == [True, True, False]


@pytest.mark.parametrize(("label", "shown"), [(None, "native"), ("sha-1", "sha-1")])
async def test_a_reply_says_what_made_it_and_when(label, shown):
    before = int(time.time())
    async with serving(docker_label=label) as client:
        body = {"prompt": "x", "max_tokens": 1}
        _, _, reply = await client.post(URL, body)
        *chunks, _ = await client.stream(URL, {**body, "stream": True})
    after = int(time.time())

    for each in (reply, *chunks):
        assert each["object"] == "text_completion"
        assert each["system_fingerprint"] == f"{__version__}-{shown}"
        assert before <= each["created"] <= after
        assert each["model"] == "tiny"


async def test_choices_are_sorted_however_they_end():
    script = answering("abcdef", "g", "hij")
    async with serving(script, validation_workers=1) as client:
        body = {"prompt": ["x", "xy", "xyz"], "temperature": 0}
        _, _, reply = await client.post(URL, body)

    found = [(choice["index"], choice["text"]) for choice in reply["choices"]]
    assert found == [(0, "abcdef"), (1, "g"), (2, "hij")]
    assert reply["usage"]["completion_tokens"] == 7 + 2 + 4  # the end tokens too


async def test_a_streams_shorter_prompts_leave_the_round_early():
    async with serving(answering("abc", "d"), validation_workers=1) as client:
        body = {"prompt": ["x", "xy"], "temperature": 0, "stream": True}
        *chunks, done = await client.stream(URL, body)

    choices = [chunk["choices"][0] for chunk in chunks]
    assert done == "[DONE]"
    assert [choice["index"] for choice in choices] == [0, 1, 0, 1, 0, 0]
    assert [choice["text"] for choice in choices] == ["a", "d", "b", "", "c", ""]
    assert [chunk["usage"]["completion_tokens"] for chunk in chunks if "usage" in chunk] == [2, 4]


@pytest.mark.parametrize(
    ("fields", "whole", "streamed"),
    [
        ({}, "stop", "eos_token"),
        ({"max_tokens": 2}, "length", "length"),
        ({"stop": ["b"]}, "stop_sequence", "stop_sequence"),
    ],
)
async def test_reasons_are_mapped_in_replies_and_raw_in_streams(fields, whole, streamed):
    async with serving(script_for("abc", end=True)) as client:
        body = {"prompt": "x", "temperature": 0, **fields}
        _, _, reply = await client.post(URL, body)
        *chunks, _ = await client.stream(URL, {**body, "stream": True})

    assert reply["choices"][0]["finish_reason"] == whole
    reasons = [chunk["choices"][0]["finish_reason"] for chunk in chunks]
    assert reasons == [""] * (len(chunks) - 1) + [streamed]


@pytest.mark.parametrize("options", [None, {}, {"include_usage": False}, {"include_usage": True}])
async def test_the_last_chunk_has_the_usage_whatever_the_options_say(options):
    async with serving() as client:
        body = {"prompt": "x", "max_tokens": 2, "stream": True, "stream_options": options}
        first, last, *extra, done = await client.stream(URL, body)

    usage = {"prompt_tokens": 1, "completion_tokens": 2, "total_tokens": 3}
    assert "usage" not in first
    assert last["usage"] == usage
    asked = bool(options and options.get("include_usage"))
    assert [(chunk["choices"], chunk["usage"]) for chunk in extra] == [([], usage)] * asked
    assert done == "[DONE]"


async def test_the_error_of_one_prompt_is_the_whole_reply():
    async with serving(script_for("ab", fail_prompts_of=len(ids_of("bad")))) as client:
        body = {"prompt": ["x", "bad"], "max_tokens": 50}
        status, headers, reply = await client.post(URL, body)
        events = await client.stream(URL, {**body, "stream": True})
        assert not client.engine.open_requests

    text = "Request failed during generation: Server error: as scripted"
    assert (status, reply) == (424, {"error": text, "error_type": "generation"})
    assert "x-compute-type" not in headers
    error = {"message": text, "http_status_code": 424}
    assert events[-2:] == [{"error": error, "error_type": "generation"}, "[DONE]"]
