"""Why a generation ended, in each route's words, and its usage: spec/http-api.md section 16."""

from __future__ import annotations

import pytest

from tests.builders.router import answering, ids_of, serving

TEXT = "Hello there"
NUM_TOKENS = len(ids_of(TEXT)) + 1  # the end of sequence is the last
MESSAGES = [{"role": "user", "content": "x"}]
SCRIPT = answering(*[TEXT] * 6)
CASES = {
    "end": ({}, NUM_TOKENS),
    "length": ({"max_new_tokens": 3}, 3),
    "stop": ({"stop": ["lo"]}, len(ids_of("Hello"))),
}
WORDS = {  # native, a completion, its stream, a chat
    "end": ("eos_token", "stop", "eos_token", "stop"),
    "length": ("length", "length", "length", "length"),
    "stop": ("stop_sequence", "stop_sequence", "stop_sequence", "stop_sequence"),
}


def openai_form(parameters):
    limit = parameters.get("max_new_tokens")
    return {"stop": parameters.get("stop"), "max_tokens": limit, "temperature": 0}


def last_reason(events):
    *others, last = [choice for event in events if event != "[DONE]" for choice in event["choices"]]
    assert not any(choice["finish_reason"] for choice in others)
    return last["finish_reason"]


@pytest.mark.parametrize("case", CASES)
async def test_each_route_has_its_word_for_the_end(case):
    parameters, num_tokens = CASES[case]
    native = {"inputs": "x", "parameters": {**parameters, "details": True}}
    completion = {"prompt": "x", **openai_form(parameters)}
    chat = {"messages": MESSAGES, **openai_form(parameters)}
    async with serving(SCRIPT) as client:
        _, _, plain = await client.post("/generate", native)
        streamed = await client.stream("/generate_stream", native)
        _, _, completed = await client.post("/v1/completions", completion)
        completing = await client.stream("/v1/completions", {**completion, "stream": True})
        _, _, chatted = await client.post("/v1/chat/completions", chat)
        chatting = await client.stream("/v1/chat/completions", {**chat, "stream": True})

    assert (
        plain["details"]["finish_reason"],
        completed["choices"][0]["finish_reason"],
        last_reason(completing),
        chatted["choices"][0]["finish_reason"],
    ) == WORDS[case]
    assert streamed[-1]["details"]["finish_reason"] == WORDS[case][0]
    assert last_reason(chatting) == WORDS[case][3]
    assert plain["details"]["generated_tokens"] == num_tokens
    assert completed["usage"] == {
        "prompt_tokens": 1, "completion_tokens": num_tokens, "total_tokens": num_tokens + 1,
    }  # fmt: skip
    assert chatted["usage"]["completion_tokens"] == num_tokens


@pytest.mark.parametrize(
    ("parameters", "reason"),
    [
        ({"max_new_tokens": NUM_TOKENS}, "length"),  # the end of sequence is the last permitted
        ({"max_new_tokens": len(ids_of("Hello")), "stop": ["lo"]}, "length"),
        ({"max_new_tokens": len(ids_of("Hello")) + 1, "stop": ["lo"]}, "stop_sequence"),
        ({"stop": ["<|end|>"]}, "eos_token"),
    ],
)
async def test_length_goes_before_the_end_and_the_end_before_a_stop_string(parameters, reason):
    async with serving(answering(TEXT)) as client:
        body = {"inputs": "x", "parameters": {**parameters, "details": True}}
        _, _, reply = await client.post("/generate", body)

    assert reply["details"]["finish_reason"] == reason


async def test_usage_counts_the_prompt_as_it_was_cut():
    async with serving(answering(TEXT)) as client:
        body = {"prompt": "a long prompt", "truncate": 5, "temperature": 0}
        _, _, reply = await client.post("/v1/completions", body)

    assert reply["usage"]["prompt_tokens"] == 5


async def test_without_a_limit_a_reply_is_as_long_as_fits():
    async with serving() as client:
        parameters = {"details": True, "top_p": 1.0}
        _, _, native = await client.post("/generate", {"inputs": "xy", "parameters": parameters})
        _, _, completion = await client.post("/v1/completions", {"prompt": "xy"})

    assert native["details"]["generated_tokens"] == 98
    assert completion["usage"]["total_tokens"] == 100
