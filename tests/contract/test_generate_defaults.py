"""What a native request means where it says little, and how long and which replies become.

spec/http-api.md sections 6.1, 6.2, 6.5, 6.6 and 7.1; `test_generate_checks.py` has the refusals.
"""

from __future__ import annotations

from typing import Any

import pytest

from tests.builders.router import answering, ids_of, script_for, serving
from tgi_cli.runtime.ipc.fake_engine import FakeEngine
from tgi_cli.runtime.ipc.messages import SequenceOutput
from tgi_cli.runtime.router.schemas.generate import GenerateParameters

Json = dict[str, Any]
NATIVE = ["/generate", "/generate_stream", "/", "/invocations"]
ROOMY = {"max_total_tokens": 3000, "max_input_tokens": 2000}


@pytest.mark.parametrize("path", NATIVE)
@pytest.mark.parametrize("inputs", [["x"], 3, None, {"text": "x"}])
async def test_inputs_are_one_string(path, inputs):
    async with serving() as client:
        status, headers, text = await client.post(path, {"inputs": inputs})

    assert status == 422
    assert headers["content-type"] == "text/plain; charset=utf-8"
    assert text.startswith("Failed to deserialize the JSON body into the target type: ")


@pytest.mark.parametrize("stream", [True, "yes", 1])
async def test_stream_is_no_field_of_generate(stream):
    async with serving(script_for("ab")) as client:
        body = {"inputs": "x", "parameters": {"max_new_tokens": 2}, "stream": stream}
        status, headers, reply = await client.post("/generate", body)
        events = await client.stream("/generate_stream", {**body, "stream": False})
        compat, _, _ = await client.post("/", {**body, "stream": "yes"})

    assert (status, reply) == (200, {"generated_text": "ab"})
    assert headers["content-type"] == "application/json"
    assert [event["index"] for event in events] == [1, 2]
    assert compat == 422


@pytest.mark.parametrize("path", NATIVE)
async def test_without_the_key_parameters_a_request_samples_at_1_with_a_random_seed(path):
    async with serving() as client:
        requests = client.record_requests()
        await client.post(path, {"inputs": "x"})
        await client.post(path, {"inputs": "x", "parameters": None})
        await client.post(path, {"inputs": "x", "parameters": {}})

    absent, null, empty = (request.sampling for request in requests)
    assert (absent.do_sample, null.do_sample, empty.do_sample) == (True, True, False)
    assert absent.temperature == 1.0
    assert absent.seed != null.seed
    assert {request.max_new_tokens for request in requests} == {99}


@pytest.mark.parametrize(
    ("parameters", "samples"),
    [
        ({}, False),
        ({"do_sample": False}, False),
        ({"temperature": 1.0}, False),
        ({"top_p": 1.0}, False),
        ({"seed": 3}, False),
        ({"repetition_penalty": 1.2}, False),
        ({"watermark": True}, False),
        ({"do_sample": True}, True),
        ({"temperature": 0.7}, True),
        ({"temperature": 1.5}, True),
        ({"top_k": 1}, True),
        ({"top_p": 0.99}, True),
        ({"typical_p": 0.99}, True),
        ({"do_sample": False, "top_k": 4}, True),
    ],
)
async def test_sampling_is_on_where_a_field_of_it_is_not_neutral(parameters, samples):
    async with serving() as client:
        requests = client.record_requests()
        parameters = {**parameters, "details": True, "max_new_tokens": 1}
        body = {"inputs": "x", "parameters": parameters}
        _, _, reply = await client.post("/generate", body)
        [event] = await client.stream("/generate_stream", body)

    seeds = [request.sampling.seed if samples else None for request in requests]
    assert [request.sampling.do_sample for request in requests] == [samples] * 2
    assert [reply["details"]["seed"], event["details"]["seed"]] == seeds


async def test_every_field_may_be_null():
    parameters = dict.fromkeys(GenerateParameters.__struct_fields__)
    async with serving() as client:
        requests = client.record_requests()
        for path in NATIVE:
            body = {"inputs": "x", "parameters": parameters, "stream": None}
            status, _, reply = await client.post(path, body)
            assert status == 200, reply

    assert all(request.sampling.takes_best for request in requests)
    assert {request.max_new_tokens for request in requests} == {99}


@pytest.mark.parametrize("tag", [None, "text-generation", "text2text-generation"])
@pytest.mark.parametrize("asked", [None, True, False])
async def test_which_replies_have_the_prompt(tag, asked):
    parameters = {"max_new_tokens": 2, "return_full_text": asked}
    body = {"inputs": "x", "parameters": parameters}
    async with serving(script_for("ab"), model_pipeline_tag=tag) as client:
        plain = (await client.post("/generate", body))[2]["generated_text"]
        streamed = (await client.stream("/generate_stream", body))[-1]["generated_text"]
        compat = [
            (await client.post(path, body))[2][0]["generated_text"]
            for path in ("/", "/invocations")
        ]
        compat_streamed = (await client.stream("/", {**body, "stream": True}))[-1]

    assert plain == streamed == ("xab" if asked else "ab")
    by_tag = tag != "text2text-generation" if asked is None else asked
    assert compat == ["xab" if by_tag else "ab"] * 2
    assert compat_streamed["generated_text"] == compat[0]


async def test_of_best_of_the_highest_mean_wins_and_the_others_keep_their_order():
    script = answering("a", "b", "c", "d", logprobs=(-3.0, -1.0, -2.0, -1.0))
    parameters = {"best_of": 4, "do_sample": True, "details": True}
    limits = {"max_best_of": 4}
    async with serving(script, limits=limits, validation_workers=1) as client:
        _, _, reply = await client.post("/generate", {"inputs": "x", "parameters": parameters})

    assert reply["generated_text"] == "b"  # as good as d, and earlier
    others = reply["details"]["best_of_sequences"]
    assert [other["generated_text"] for other in others] == ["a", "c", "d"]
    assert len({reply["details"]["seed"], *(other["seed"] for other in others)}) == 4


async def test_best_of_1_has_no_others():
    async with serving() as client:
        parameters = {"best_of": 1, "details": True, "max_new_tokens": 1}
        _, _, reply = await client.post("/generate", {"inputs": "x", "parameters": parameters})

    assert "best_of_sequences" not in reply["details"]


@pytest.mark.parametrize("logprob", [float("nan"), float("-inf"), float("inf")])
async def test_a_logprob_that_is_no_number_is_null(logprob):
    async with serving(script_for("ab", logprobs=(logprob,))) as client:
        body = {"inputs": "x", "parameters": {"max_new_tokens": 1, "details": True}}
        _, _, reply = await client.post("/generate", body)
        [event] = await client.stream("/generate_stream", body)

    assert reply["details"]["tokens"][0]["logprob"] is None
    assert event["token"]["logprob"] is None


@pytest.mark.parametrize("asked", [1025, 1500, 2998])
async def test_no_more_tokens_come_than_were_asked_for(asked):
    async with serving(limits=ROOMY) as client:
        body = {"inputs": "x", "parameters": {"max_new_tokens": asked, "details": True}}
        _, _, reply = await client.post("/generate", body)

    assert reply["details"]["generated_tokens"] == asked
    assert reply["details"]["finish_reason"] == "length"


async def test_of_what_is_asked_the_first_1024_have_to_fit():
    prompt = "x" * 20
    num_input = len(ids_of(prompt))
    most = num_input + 1024
    body = {"inputs": prompt, "parameters": {"max_new_tokens": 10_000, "details": True}}
    async with serving(limits={**ROOMY, "max_total_tokens": most}) as client:
        _, _, fits = await client.post("/generate", body)
        *_, last = await client.stream("/generate_stream", body)
    async with serving(limits={**ROOMY, "max_total_tokens": most - 1}) as client:
        status, _, refused = await client.post("/generate", body)
        events = await client.stream("/generate_stream", body)

    for details in (fits["details"], last["details"]):
        assert (details["generated_tokens"], details["finish_reason"]) == (1024, "length")
    assert status == 422
    assert refused["error"] == (
        f"Input validation error: `inputs` tokens + `max_new_tokens` must be <= {most - 1}. "
        f"Given: {num_input} `inputs` tokens and 1024 `max_new_tokens`"
    )
    assert events == [refused]


async def test_one_new_token_is_one_event():
    async with serving(script_for("ab")) as client:
        body = {"inputs": "x", "parameters": {"max_new_tokens": 1, "details": True}}
        [event] = await client.stream("/generate_stream", body)

    assert list(event) == ["index", "token", "generated_text", "details"]
    assert event["index"] == 1
    assert event["generated_text"] == event["token"]["text"] == "a"
    assert list(event["details"]) == ["finish_reason", "generated_tokens", "seed", "input_length"]


async def test_what_is_no_text_yet_is_empty_in_an_event():
    emoji = ids_of("😀")
    async with serving(script_for("😀")) as client:
        body = {"inputs": "x", "parameters": {"max_new_tokens": len(emoji)}}
        events = await client.stream("/generate_stream", body)

    assert len(emoji) > 1
    assert [event["token"]["text"] for event in events] == [""] * (len(emoji) - 1) + ["😀"]
    assert events[-1]["generated_text"] == "😀"


async def test_tokens_that_come_together_are_events_of_their_own(monkeypatch):
    body = {"inputs": "x", "parameters": {"max_new_tokens": 5, "details": True}}
    async with serving(script_for("abc")) as client:
        one_by_one = await client.stream("/generate_stream", body)
    next_output = FakeEngine._next_output

    def next_two(self, *step):
        first = next_output(self, *step)
        if first.finish_reason is not None:
            return first
        second = next_output(self, *step)
        return SequenceOutput(
            first.request_id,
            first.token_ids + second.token_ids,
            first.logprobs + second.logprobs,
            second.finish_reason,
        )

    monkeypatch.setattr(FakeEngine, "_next_output", next_two)
    async with serving(script_for("abc")) as client:
        together = await client.stream("/generate_stream", body)

    assert [event["index"] for event in together] == [1, 2, 3, 4, 5]
    assert together == one_by_one
