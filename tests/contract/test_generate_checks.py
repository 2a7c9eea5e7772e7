"""What a generation may ask for, on every route: spec/http-api.md section 6.4, row by row.

`test_generate.py` has the native routes' values one by one; here is each text on each route, and
the order in which the checks are made.
"""

from __future__ import annotations

import itertools
from typing import Any

import pytest

from tests.builders.router import TOKENIZER, ids_of, serving
from tests.builders.tokenizers import END

Json = dict[str, Any]

CHAT_TOKENS = len(ids_of(f"<|user|>x{END}<|assistant|>"))
BEST_OF_STREAM = "`best_of` != 1 is not supported when streaming tokens"
PROMPT_DETAILS_STREAM = "`decoder_input_details` == true is not supported when streaming tokens"
OVERLOADED = {"error": "Model is overloaded", "error_type": "overloaded"}
OPENAI_OVERLOADED = {
    "error": {"message": "Model is overloaded", "http_status_code": 429},
    "error_type": "overloaded",
}
LONG = "😀" * 24
NUM_LONG = len(ids_of(LONG))


def invalid(text: str) -> Json:
    return {"error": f"Input validation error: {text}", "error_type": "validation"}


def native(inputs: str, parameters: Json) -> Json:
    return {"inputs": inputs, "parameters": parameters}


NATIVE_NAMES = {"max_tokens": "max_new_tokens", "response_format": "grammar"}


def requests_for(prompt: str, fields: Json) -> list[tuple[str, Json, bool]]:
    """Return the same request for each route: path, body, whether it streams.

    `fields` have OpenAI's names.
    """
    parameters = {NATIVE_NAMES.get(name, name): value for name, value in fields.items()}
    body = native(prompt, parameters)
    chat = {"messages": [{"role": "user", "content": prompt}], **fields}
    return [
        ("/generate", body, False),
        ("/generate_stream", body, True),
        ("/", body, False),
        ("/", {**body, "stream": True}, True),
        ("/invocations", body, False),
        ("/v1/completions", {"prompt": prompt, **fields}, False),
        ("/v1/completions", {"prompt": prompt, "stream": True, **fields}, True),
        ("/v1/chat/completions", chat, False),
        ("/v1/chat/completions", {**chat, "stream": True}, True),
    ]


async def refusal(client, path: str, body: Json, *, is_stream: bool) -> Json:
    """Return the error, as one of a plain reply; check that a stream tells it as its kind does."""
    if not is_stream:
        status, headers, reply = await client.post(path, body)
        assert status == 422
        assert headers["content-type"] == "application/json"
        return reply
    events = await client.stream(path, body)
    if path.startswith("/v1/"):
        assert events.pop() == "[DONE]"
        [event] = events
        assert event["error"]["http_status_code"] == 422
        return {**event, "error": event["error"]["message"]}
    [event] = events
    return event


ON_EVERY_ROUTE = {
    "9": ({"temperature": -0.1}, "`temperature` must be strictly positive"),
    "10": ({"repetition_penalty": 0}, "`repetition_penalty` must be strictly positive"),
    "10-negative": ({"repetition_penalty": -2}, "`repetition_penalty` must be strictly positive"),
    "11": ({"frequency_penalty": -2.1}, "`frequency_penalty` must be >= -2.0 and <= 2.0"),
    "12": ({"top_p": 0}, "`top_p` must be > 0.0 and < 1.0"),
    "12-above": ({"top_p": 1.01}, "`top_p` must be > 0.0 and < 1.0"),
    "13": ({"top_k": -1}, "`top_k` must be strictly positive"),
    "14": (
        {"truncate": 91},
        "`truncate` must be strictly positive and less than 90. Given: 91",
    ),
    "14-none": (
        {"truncate": 0},
        "`truncate` must be strictly positive and less than 90. Given: 0",
    ),
    "15": ({"typical_p": 0}, "`typical_p` must be > 0.0 and < 1.0"),
    "15-off": ({"typical_p": 1.0}, "`typical_p` must be > 0.0 and < 1.0"),
    "17": ({"max_tokens": 0}, "`max_new_tokens` must be strictly positive"),
    "22": ({"stop": list("abcde")}, "`stop` supports up to 4 stop sequences. Given: 5"),
    "24": ({"response_format": {"type": "regex", "value": "a"}}, "grammar is not supported"),
}


@pytest.mark.parametrize("row", ON_EVERY_ROUTE)
async def test_a_value_out_of_range_has_its_text_on_every_route(row):
    fields, text = ON_EVERY_ROUTE[row]
    async with serving(supports_grammars=row != "24") as client:
        for path, body, is_stream in requests_for("x", fields):
            assert await refusal(client, path, body, is_stream=is_stream) == invalid(text), path


async def test_prompt_and_new_tokens_have_to_fit_on_every_route():
    async with serving() as client:
        for path, body, is_stream in requests_for("x", {"max_tokens": 200}):
            given = CHAT_TOKENS if "chat" in path else 1
            text = (
                "`inputs` tokens + `max_new_tokens` must be <= 100. "
                f"Given: {given} `inputs` tokens and 200 `max_new_tokens`"
            )
            assert await refusal(client, path, body, is_stream=is_stream) == invalid(text), path


async def test_a_prompt_may_have_the_most_tokens_and_not_one_more():
    limits = {"max_input_tokens": NUM_LONG, "max_total_tokens": 300}
    async with serving(limits=limits) as client:
        fits, _, _ = await client.post("/generate", native(LONG, {"max_new_tokens": 1}))
    async with serving(limits={**limits, "max_input_tokens": NUM_LONG - 1}) as client:
        for path, body, is_stream in requests_for(LONG, {"max_tokens": 1}):
            given = NUM_LONG + ("chat" in path) * (CHAT_TOKENS - 1)
            text = f"`inputs` must have less than {NUM_LONG - 1} tokens. Given: {given}"
            assert await refusal(client, path, body, is_stream=is_stream) == invalid(text), path

    assert fits == 200


async def test_the_tokens_of_a_text_of_65536_characters_are_counted():
    text = "ab" * (1 << 15)
    async with serving() as client:
        _, _, reply = await client.post("/generate", native(text, {"max_new_tokens": 7}))

    assert reply == invalid(
        "`inputs` tokens + `max_new_tokens` must be <= 100. "
        f"Given: {len(ids_of(text))} `inputs` tokens and 7 `max_new_tokens`"
    )


@pytest.mark.parametrize("max_total_tokens", [NUM_LONG, NUM_LONG - 1])
async def test_without_max_new_tokens_as_many_are_counted_as_are_left(max_total_tokens):
    limits = {"max_input_tokens": 90, "max_total_tokens": max_total_tokens}
    async with serving(limits=limits) as client:
        _, _, reply = await client.post("/generate", {"inputs": LONG})

    if max_total_tokens == NUM_LONG:  # none are left: the prompt alone fits exactly
        expected = f"`inputs` must have less than 90 tokens. Given: {NUM_LONG}"
    else:
        expected = (
            f"`inputs` tokens + `max_new_tokens` must be <= {max_total_tokens}. "
            f"Given: {NUM_LONG} `inputs` tokens and 0 `max_new_tokens`"
        )
    assert reply == invalid(expected)


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/generate", {"inputs": ""}),
        ("/", {"inputs": ""}),
        ("/invocations", {"inputs": ""}),
        ("/v1/completions", {"prompt": ""}),
        ("/v1/completions", {"prompt": ["x", ""]}),
    ],
)
async def test_an_empty_prompt_is_refused(path, body):
    async with serving() as client:
        status, _, reply = await client.post(path, body)

    assert (status, reply) == (422, invalid("`inputs` cannot be empty"))


@pytest.mark.parametrize("url", ["https://x.example/a.png", "data:image/png;base64,@@"])
async def test_a_prompt_with_an_image_is_refused_by_a_model_of_text(url):
    text = f"See ![]({url})?"
    image = {"type": "image_url", "image_url": {"url": url}}
    chat = {"messages": [{"role": "user", "content": [image]}]}
    async with serving() as client:
        replies = [
            await client.post("/generate", {"inputs": text}),
            await client.post("/", {"inputs": text}),
            await client.post("/v1/completions", {"prompt": text}),
            await client.post("/v1/chat/completions", chat),
        ]
        events = await client.stream("/generate_stream", {"inputs": text})
        link, _, _ = await client.post("/generate", {"inputs": f"[a](https://x) !a[]({url})"})

    error = invalid("image modality is not supported")
    assert [(status, reply) for status, _, reply in replies] == [(422, error)] * 4
    assert events == [error]
    assert link == 200


async def test_best_of_is_checked_against_its_limit():
    async with serving(limits={"max_best_of": 3}) as client:
        _, _, above = await client.post("/generate", native("x", {"best_of": 4}))
        none, _, _ = await client.post("/", native("x", {"best_of": 0, "max_new_tokens": 1}))
    async with serving(limits={"max_best_of": 1}) as client:
        _, _, off = await client.post("/generate", native("x", {"best_of": 2}))
        one, _, _ = await client.post("/generate", native("x", {"best_of": 1}))

    assert above == invalid("`best_of` must be > 0 and <= 3. Given: 4")
    assert off == invalid("`best_of` != 1 is not allowed for this endpoint")
    assert (none, one) == (200, 200)


@pytest.mark.parametrize("path", ["/generate_stream", "/"])
@pytest.mark.parametrize("best_of", [0, 2, 9])
async def test_a_stream_has_one_best(path, best_of):
    async with serving() as client:
        body = {**native("x", {"best_of": best_of}), "stream": True}
        refused = await client.stream(path, body)
        one = await client.stream(
            path, {**native("x", {"best_of": 1, "max_new_tokens": 1}), "stream": True}
        )

    assert refused == [invalid(BEST_OF_STREAM)]
    assert one[0]["index"] == 1


@pytest.mark.parametrize(
    ("fields", "status"),
    [
        ({}, 422),
        ({"do_sample": False}, 422),
        ({"top_n_tokens": 1}, 422),
        ({"do_sample": True}, 200),
        ({"temperature": 1.0}, 200),  # neutral, but there
        ({"top_k": 3}, 200),
        ({"top_p": 1.0}, 200),
        ({"typical_p": 0.5}, 200),
    ],
)
async def test_best_of_wants_a_sampling_field_to_be_present(fields, status):
    parameters = {"best_of": 2, "max_new_tokens": 1, **fields}
    async with serving() as client:
        found, _, reply = await client.post("/generate", native("x", parameters))

    assert found == status
    if status == 422:
        assert reply == invalid("you must use sampling when `best_of` is > 1")


async def test_a_limit_of_no_top_tokens_has_the_text_of_any_other():
    async with serving(limits={"max_top_n_tokens": 0}) as client:
        _, _, reply = await client.post("/generate", native("x", {"top_n_tokens": 1}))
        none, _, _ = await client.post("/generate", native("x", {"top_n_tokens": 0}))
        chat = {"messages": [{"role": "user", "content": "x"}], "top_logprobs": 1}
        _, _, of_chat = await client.post("/v1/chat/completions", chat)

    assert reply == of_chat == invalid("`top_n_tokens` must be >= 0 and <= 0. Given: 1")
    assert none == 200


async def test_neither_max_new_tokens_nor_truncate_need_be_given():
    async with serving() as client:
        status, headers, _ = await client.post("/generate", native("x", {}))

    assert status == 200
    assert headers["x-generated-tokens"] == "99"


FAULTS: dict[str, tuple[Json, str]] = {  # in the order of the checks
    "3": ({"best_of": 2}, "you must use sampling"),
    "9": ({"temperature": 0}, "`temperature`"),
    "10": ({"repetition_penalty": 0}, "`repetition_penalty`"),
    "11": ({"frequency_penalty": 3}, "`frequency_penalty`"),
    "12": ({"top_p": 2}, "`top_p`"),
    "15": ({"typical_p": 2}, "`typical_p`"),
    "13": ({"top_k": 0}, "`top_k`"),
    "17": ({"max_new_tokens": 0}, "`max_new_tokens` must be strictly"),
    "22": ({"stop": list("abcde")}, "`stop`"),
    "4": ({"best_of": 2, "seed": 0, "do_sample": True}, "`seed`"),
    "6": ({"top_n_tokens": 6}, "`top_n_tokens`"),
    "21": ({"inputs": ""}, "`inputs` cannot be empty"),
    "14": ({"truncate": 0}, "`truncate`"),
    "19": ({"max_new_tokens": 300}, "`inputs` tokens + `max_new_tokens`"),
    "20": ({"inputs": LONG}, "`inputs` must have less"),
    "25": ({"grammar": {"type": "json_schema", "value": {}}}, "grammar is not valid"),
}
SAMPLES = {"9", "12", "15", "13", "4"}  # with these, 3 is no fault


def pairs_of_faults():
    for first, second in itertools.combinations(FAULTS, 2):
        one, other = FAULTS[first][0], FAULTS[second][0]
        if not (one.keys() & other.keys() or (first == "3" and second in SAMPLES)):
            yield first, second


async def test_of_two_faults_the_one_that_is_checked_first_is_told():
    async with serving(limits={"max_total_tokens": 200}) as client:
        for first, second in pairs_of_faults():
            parameters = {**FAULTS[second][0], **FAULTS[first][0]}
            inputs = parameters.pop("inputs", "x")
            _, _, reply = await client.post("/generate", native(inputs, parameters))

            text = f"Input validation error: {FAULTS[first][1]}"
            assert reply["error"].startswith(text), (first, second)


async def test_only_what_streams_cannot_do_is_told_by_a_full_server():
    both = {"best_of": 2, "decoder_input_details": True}
    async with serving(limits={"max_concurrent_requests": 0}) as client:
        best_of = await client.stream("/generate_stream", native("x", both))
        details = await client.stream(
            "/generate_stream", native("x", {"decoder_input_details": True, "temperature": 0})
        )
        too_many = await client.post("/generate", native("x", {"best_of": 3}))
        for path, body, is_stream in requests_for("", {"temperature": -1, "max_tokens": 0}):
            if is_stream:
                events = await client.stream(path, body)
                assert events[0] == (OPENAI_OVERLOADED if "/v1/" in path else OVERLOADED)
            else:
                status, _, reply = await client.post(path, body)
                assert (status, reply) == (429, OVERLOADED), path

    assert best_of == [invalid(BEST_OF_STREAM)]
    assert details == [invalid(PROMPT_DETAILS_STREAM)]
    assert too_many[2] == invalid("`best_of` must be > 0 and <= 2. Given: 3")


@pytest.mark.parametrize(("num_permits", "status"), [(1, 429), (2, 200)])
@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/generate", native("x", {"best_of": 2, "do_sample": True, "max_new_tokens": 2})),
        ("/v1/completions", {"prompt": ["x", "y"], "max_tokens": 2}),
    ],
)
async def test_each_run_takes_a_permit_of_its_own(path, body, num_permits, status):
    async with serving(limits={"max_concurrent_requests": num_permits}) as client:
        first, _, _ = await client.post(path, body)
        again, _, _ = await client.post(path, body)

    assert (first, again) == (status, status)  # all of them come back


@pytest.mark.parametrize(
    ("grammar", "text"),
    [
        ({"type": "regex", "value": "("}, "grammar is not valid: "),
        ({"type": "json", "value": {"type": "object"}}, "Grammar must have a 'properties' field"),
        (
            {"type": "json", "value": {"properties": {"a": {"not": {}}}}},
            "cannot compile regex from schema: ",
        ),
    ],
)
async def test_a_grammar_that_cannot_be_used_has_its_text_on_every_route(grammar, text):
    async with serving() as client:
        for path, body, is_stream in requests_for("x", {"response_format": grammar}):
            error = await refusal(client, path, body, is_stream=is_stream)

            assert error["error"].startswith(f"Input validation error: {text}"), path
            assert error["error_type"] == "validation"


async def test_what_the_tokenizer_cannot_do_is_told_without_its_own_words(monkeypatch):
    class Broken:
        def encode_batch_fast(self, *_args: object, **_options: object) -> None:
            raise RuntimeError("/secret/path")

    async with serving() as client:
        monkeypatch.setattr(TOKENIZER, "_tokenizer", Broken())
        status, _, reply = await client.post("/generate", {"inputs": "x"})

    assert status == 422
    assert reply == invalid("tokenizer error the text can't be tokenized")
