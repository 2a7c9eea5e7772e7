"""`/v1/completions`: spec/http-api.md section 9."""

from __future__ import annotations

import pytest

from tests.builders.router import TOKENIZER, ids_of, script_for, serving
from tests.builders.tokenizers import END

URL = "/v1/completions"
GREEDY = {"prompt": "x", "temperature": 0}


async def test_completions_of_several_prompts_come_in_order_with_summed_usage():
    async with serving(script_for("abc")) as client:
        body = {"prompt": ["x", "xy", "xyz"], "max_tokens": 3, "temperature": 0}
        _, headers, reply = await client.post(URL, body)
        *chunks, done = await client.stream(URL, {**body, "stream": True})

    assert next(iter(reply)) == "object"
    assert [choice["index"] for choice in reply["choices"]] == [0, 1, 2]
    assert all(choice["finish_reason"] == "length" for choice in reply["choices"])
    assert reply["usage"]["completion_tokens"] == 9
    assert "x-compute-time" not in headers
    assert done == "[DONE]"
    assert [chunk["choices"][0]["index"] for chunk in chunks] == [0, 1, 2] * 3  # round robin
    for index, choice in enumerate(reply["choices"]):
        mine = [c for c in chunks if c["choices"][0]["index"] == index]
        assert "".join(c["choices"][0]["text"] for c in mine) == choice["text"]
        assert [c["choices"][0]["finish_reason"] for c in mine] == ["", "", "length"]
        assert "usage" not in mine[0]
        assert mine[-1]["usage"]["completion_tokens"] == 3


async def test_completions_refuse_suffix_too_many_prompts_and_none():
    async with serving() as client:
        suffix = await client.post(URL, {"prompt": "x", "suffix": "y"})
        many = await client.post(URL, {"prompt": ["x"] * 5})
        none = await client.post(URL, {"prompt": []})

    assert suffix[0] == 422
    assert suffix[2] == {
        "error": "Suffix is not supported and can be achieved by preprocessing the prompt.",
        "error_type": "suffix not supported",
    }
    assert many[2] == {
        "error": "Number of prompts exceeds the maximum allowed batch size of 4",
        "error_type": "batch size exceeded",
    }
    assert none[0] == 422
    assert "Empty array detected. Do not use an empty array for the prompt." in none[2]


async def test_one_refused_prompt_refuses_the_whole_call():
    async with serving() as client:
        status, _, reply = await client.post(URL, {"prompt": ["x", ""]})
        assert await client.metric("tgi_requests_running") == 0

    assert status == 422
    assert reply["error_type"] == "validation"


async def test_a_reply_has_the_documented_shape():
    async with serving(script_for("Hello", end=True), docker_label="sha-1") as client:
        _, headers, reply = await client.post(URL, GREEDY)

    assert list(reply) == [
        "object", "id", "created", "model", "system_fingerprint", "choices", "usage",
    ]  # fmt: skip
    assert reply["object"] == "text_completion"
    assert reply["id"].startswith("cmpl-")
    assert reply["model"] == "tiny"
    assert reply["system_fingerprint"].endswith("-sha-1")
    assert reply["choices"] == [
        {"index": 0, "text": "Hello", "logprobs": None, "finish_reason": "stop"}
    ]
    assert headers["x-compute-characters"] == "1"


async def test_token_ids_are_taken_as_they_are():
    ids = list(ids_of("quick 日本"))
    async with serving() as client:
        one = await client.post(URL, {**GREEDY, "prompt": ids, "max_tokens": 1})
        two = await client.post(URL, {**GREEDY, "prompt": [ids, ids[:3]], "max_tokens": 1})
        events = await client.stream(
            URL, {**GREEDY, "prompt": [ids, ids[:3]], "max_tokens": 1, "stream": True}
        )

    assert one[2]["usage"]["prompt_tokens"] == len(ids)
    assert one[1]["x-compute-characters"] == str(len("quick 日本"))
    assert two[2]["usage"]["prompt_tokens"] == len(ids) + 3
    assert [event["choices"][0]["index"] for event in events[:-1]] == [0, 1]


@pytest.mark.parametrize(
    ("prompt", "place"),
    [([5, -1], "-1 at [1]"), ([[1], [2, 3, 10**9]], "1000000000 at [1][2]"), ([2**70], "at [0]")],
)
@pytest.mark.parametrize("stream", [False, True])
async def test_ids_outside_the_vocabulary_are_refused_with_their_place(prompt, place, stream):
    async with serving() as client:
        status, _, reply = await client.post(URL, {"prompt": prompt, "stream": stream})

    assert status == 422
    assert reply["error_type"] == "validation"
    assert f"from 0 to {TOKENIZER.vocab_size - 1}" in reply["error"]
    assert reply["error"].endswith(place)


@pytest.mark.parametrize("prompt", [["a", 1], [1, [2]], [["a"]], [None], {}, 3, [[[1]]], [1.5]])
async def test_prompts_of_other_kinds_are_refused_when_decoding(prompt):
    async with serving() as client:
        status, _, text = await client.post(URL, {"prompt": prompt})

    assert status == 422
    assert text.startswith("Failed to deserialize the JSON body into the target type: prompt")


async def test_an_empty_list_of_ids_is_an_empty_prompt():
    async with serving() as client:
        status, _, reply = await client.post(URL, {"prompt": [[1], []]})

    assert (status, reply["error"]) == (422, "Input validation error: `inputs` cannot be empty")


async def test_n_gives_so_many_choices_of_each_prompt_in_order():
    async with serving(script_for("abc")) as client:
        body = {"prompt": ["x", "xy"], "n": 2, "max_tokens": 3, "temperature": 0}
        _, _, reply = await client.post(URL, body)
        *chunks, usage, done = await client.stream(
            URL, {**body, "stream": True, "stream_options": {"include_usage": True}}
        )

    assert [choice["index"] for choice in reply["choices"]] == [0, 1, 2, 3]
    texts = [choice["text"] for choice in reply["choices"]]
    assert texts == ["abc", "abc", "bca", "bca"]
    assert reply["usage"] == {"prompt_tokens": 3, "completion_tokens": 12, "total_tokens": 15}
    assert [chunk["choices"][0]["index"] for chunk in chunks] == [0, 1, 2, 3] * 3
    assert usage["choices"] == []
    assert usage["usage"] == reply["usage"]
    assert done == "[DONE]"


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"n": 0}, "`n` must be > 0 and <= 4. Given: 0"),
        ({"n": 5}, "`n` must be > 0 and <= 4. Given: 5"),
        ({"n": 2, "best_of": 1}, "`best_of` must be >= `n`. Given: 1 `best_of` and 2 `n`"),
        ({"best_of": 3}, "`best_of` must be > 0 and <= 2. Given: 3"),
        (
            {"best_of": 2, "stream": True},
            "`best_of` != 1 is not supported when streaming tokens",
        ),
    ],
)
async def test_counts_of_choices_out_of_range_are_refused(change, text):
    async with serving() as client:
        status, _, reply = await client.post(URL, {**GREEDY, **change})
        failures = await client.metric('tgi_request_failure{err="validation"}')

    assert (status, reply["error"]) == (422, f"Input validation error: {text}")
    assert failures == 1


async def test_echo_puts_the_prompt_before_the_text():
    ids = list(ids_of("quick"))
    async with serving(script_for("abc", prompt="quick")) as client:
        body = {"temperature": 0, "max_tokens": 2, "echo": True}
        _, _, text = await client.post(URL, {**body, "prompt": "quick"})
        _, _, of_ids = await client.post(URL, {**body, "prompt": ids})
        _, _, cut = await client.post(URL, {**body, "prompt": "日quick", "truncate": len(ids)})
        chunks = await client.stream(URL, {**body, "prompt": ids, "stream": True})

    for reply in (text, of_ids, cut):
        assert reply["choices"][0]["text"] == "quickab"
    assert [chunk["choices"][0]["text"] for chunk in chunks[:-1]] == ["quicka", "b"]


async def test_no_new_tokens_with_echo_returns_the_prompt_alone():
    async with serving() as client:
        body = {**GREEDY, "prompt": "quick", "max_tokens": 0}
        _, _, echoed = await client.post(URL, {**body, "echo": True})
        chunk, done = await client.stream(URL, {**body, "echo": True, "stream": True})
        refused = await client.post(URL, body)

    num_prompt = len(ids_of("quick"))
    usage = {"prompt_tokens": num_prompt, "completion_tokens": 0, "total_tokens": num_prompt}
    for reply in (echoed, chunk):
        assert reply["choices"][0]["text"] == "quick"
        assert reply["choices"][0]["finish_reason"] == "length"
        assert reply["usage"] == usage
    assert done == "[DONE]"
    assert refused[2]["error"].endswith("`max_new_tokens` must be strictly positive")


async def test_the_end_token_is_not_in_a_streams_text():
    async with serving(script_for("ab", end=True)) as client:
        *chunks, _ = await client.stream(URL, {**GREEDY, "stream": True})

    assert [chunk["choices"][0]["text"] for chunk in chunks] == ["a", "b", ""]
    assert [c["choices"][0]["finish_reason"] for c in chunks] == ["", "", "eos_token"]


async def test_a_bare_stop_string_ends_the_text_with_tgis_reason():
    async with serving(script_for("abcdef")) as client:
        body = {**GREEDY, "stop": "cd"}
        _, _, reply = await client.post(URL, body)
        *chunks, _ = await client.stream(URL, {**body, "stream": True})

    [choice] = reply["choices"]
    assert (choice["text"], choice["finish_reason"]) == ("abcd", "stop_sequence")
    assert chunks[-1]["choices"][0]["finish_reason"] == "stop_sequence"


async def test_errors_of_a_stream_are_an_event_with_the_true_status():
    limits = {"max_concurrent_requests": 1}
    async with serving(limits=limits) as client:
        refused = await client.stream(URL, {"prompt": "x", "temperature": -1, "stream": True})
        overloaded = await client.stream(URL, {"prompt": ["x", "y"], "stream": True})
        assert await client.metric("tgi_requests_running") == 0

    message = "Input validation error: `temperature` must be strictly positive"
    error = {"message": message, "http_status_code": 422}
    assert refused == [{"error": error, "error_type": "validation"}, "[DONE]"]
    assert overloaded == [
        {
            "error": {"message": "Model is overloaded", "http_status_code": 429},
            "error_type": "overloaded",
        },
        "[DONE]",
    ]


async def test_logprobs_are_parallel_lists_over_the_choices_tokens():
    async with serving(script_for("abc", end=True)) as client:
        body = {**GREEDY, "logprobs": 2}
        _, _, reply = await client.post(URL, body)
        *chunks, _ = await client.stream(URL, {**body, "stream": True})

    logprobs = reply["choices"][0]["logprobs"]
    assert logprobs["tokens"] == ["a", "b", "c", END]
    assert logprobs["token_logprobs"] == [-0.5] * 4
    assert logprobs["text_offset"] == [0, 1, 2, 3]
    # The fake's second best token is the one after it in the vocabulary.
    assert logprobs["top_logprobs"][:2] == [{"a": -0.5, "b": -1.5}, {"b": -0.5, "c": -1.5}]
    streamed = [chunk["choices"][0]["logprobs"] for chunk in chunks]
    for name, values in logprobs.items():
        assert [value for each in streamed for value in each[name]] == values


@pytest.mark.parametrize(("logprobs", "num_top"), [(0, 1), (True, 1), (1, 1), (2, 2)])
async def test_each_token_is_among_its_best(logprobs, num_top):
    async with serving(script_for("abc")) as client:
        body = {**GREEDY, "logprobs": logprobs, "max_tokens": 3}
        _, _, reply = await client.post(URL, body)

    told = reply["choices"][0]["logprobs"]
    for token, best in zip(told["tokens"], told["top_logprobs"], strict=True):
        assert token in best
        assert len(best) == num_top


@pytest.mark.parametrize("max_tokens", [0, 2])
@pytest.mark.parametrize("stream", [False, True])
async def test_echoed_logprobs_begin_with_the_prompts_tokens(max_tokens, stream):
    ids = list(ids_of("日quick"))
    num_prompt = len(ids)
    body = {
        "prompt": ids,
        "temperature": 0,
        "max_tokens": max_tokens,
        "echo": True,
        "logprobs": 1,
        "stream": stream,
    }
    async with serving(script_for("abc", prompt="日quick")) as client:
        if stream:
            *chunks, _ = await client.stream(URL, body)
            choices = [chunk["choices"][0] for chunk in chunks]
        else:
            choices = [(await client.post(URL, body))[2]["choices"][0]]

    text = "".join(choice["text"] for choice in choices)
    told = {
        name: [value for choice in choices for value in choice["logprobs"][name]]
        for name in ("tokens", "token_logprobs", "top_logprobs", "text_offset")
    }
    assert text == "日quick" + "ab"[:max_tokens]
    assert "".join(told["tokens"]) == text
    assert told["token_logprobs"] == [None] + [-0.25] * (num_prompt - 1) + [-0.5] * max_tokens
    assert told["top_logprobs"][0] is None
    assert all(len(best) == 1 for best in told["top_logprobs"][1:])
    assert told["text_offset"][num_prompt:] == [6, 7][:max_tokens]
    assert told["text_offset"][num_prompt - 1] < 6


async def test_without_echo_the_prompt_has_no_logprobs():
    async with serving(script_for("abc", prompt="quick")) as client:
        body = {**GREEDY, "prompt": "quick", "max_tokens": 1, "logprobs": 1}
        _, _, reply = await client.post(URL, body)

    assert reply["choices"][0]["logprobs"]["tokens"] == ["a"]


async def test_more_logprobs_than_the_limit_are_refused():
    async with serving() as client:
        status, _, reply = await client.post(URL, {**GREEDY, "logprobs": 6})

    error = "Input validation error: `logprobs` must be >= 0 and <= 5. Given: 6"
    assert (status, reply["error"]) == (422, error)


async def test_best_of_counts_all_of_its_runs_in_the_usage():
    async with serving(script_for("abc"), limits={"max_best_of": 3}) as client:
        body = {"prompt": ["x", "xy"], "max_tokens": 2, "seed": 5, "best_of": 3, "n": 2}
        _, _, reply = await client.post(URL, body)

    assert [choice["index"] for choice in reply["choices"]] == [0, 1, 2, 3]
    assert reply["usage"] == {"prompt_tokens": 3, "completion_tokens": 12, "total_tokens": 15}


@pytest.mark.parametrize("stream", [False, True])
async def test_a_prompt_of_one_token_has_it_without_a_score(stream):
    body = {**GREEDY, "max_tokens": 1, "echo": True, "logprobs": 1, "stream": stream}
    async with serving(script_for("abc")) as client:
        if stream:
            reply, _ = await client.stream(URL, body)
        else:
            _, _, reply = await client.post(URL, body)

    told = reply["choices"][0]["logprobs"]
    assert told["tokens"] == ["x", "a"]
    assert told["token_logprobs"] == [None, -0.5]
    assert told["text_offset"] == [0, 1]
