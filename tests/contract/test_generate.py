"""`/generate`, `/generate_stream` and `/`: spec/http-api.md sections 6 to 8."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.builders.router import END_ID, TOKENIZER, ids_of, script_for, serving
from tgi_cli.runtime.ipc.client import EngineClient, OpenRequest
from tgi_cli.runtime.ipc.messages import NewRequest
from tgi_cli.runtime.router.schemas.generate import GenerateParameters
from tgi_cli.runtime.text.tokenizer import Tokenizer
from tgi_cli.runtime.types import SamplingParams


async def test_a_reply_holds_text_and_on_request_details():
    async with serving(script_for("Hello there", end=True)) as client:
        status, headers, reply = await client.post("/generate", {"inputs": "x"})
        _, _, detailed = await client.post(
            "/generate", {"inputs": "x", "parameters": {"details": True}}
        )

    assert status == 200
    assert list(reply) == ["generated_text"]
    assert reply["generated_text"] == "Hello there"
    details = detailed["details"]
    assert list(details) == ["finish_reason", "generated_tokens", "seed", "prefill", "tokens"]
    assert details["finish_reason"] == "eos_token"
    assert details["seed"] is None
    assert details["generated_tokens"] == len(details["tokens"]) == len(ids_of("Hello there")) + 1
    assert details["tokens"][-1] == {
        "id": END_ID,
        "text": "<|end|>",
        "logprob": -0.5,
        "special": True,
    }
    for name in ("x-compute-type", "x-total-time", "x-prompt-tokens", "x-generated-tokens"):
        assert name in headers
    assert headers["x-compute-characters"] == "1"


async def test_stream_events_carry_one_token_each_and_the_last_the_text():
    async with serving(script_for("Hi 😀!")) as client:
        body = {"inputs": "x", "parameters": {"max_new_tokens": 7, "details": True}}
        events = await client.stream("/generate_stream", body)

    assert [event["index"] for event in events] == list(range(1, 8))
    text = "".join(event["token"]["text"] for event in events)
    assert events[-1]["generated_text"] == text
    assert all(event["generated_text"] is None for event in events[:-1])
    assert all(event["details"] is None for event in events[:-1])
    assert events[-1]["details"] == {
        "finish_reason": "length",
        "generated_tokens": 7,
        "seed": None,
        "input_length": 1,
    }


@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    text=st.text(min_size=1, max_size=30),
    max_new_tokens=st.integers(1, 40),
    stop=st.lists(st.text("abe 日", min_size=1, max_size=3), max_size=2),
)
async def test_a_stream_joined_equals_the_reply(text, max_new_tokens, stop):
    parameters = {"max_new_tokens": max_new_tokens, "stop": stop, "details": True}
    async with serving(script_for(text)) as client:
        body = {"inputs": "x", "parameters": parameters}
        _, _, reply = await client.post("/generate", body)
        events = await client.stream("/generate_stream", body)

    joined = "".join(event["token"]["text"] for event in events)
    assert joined == reply["generated_text"] == events[-1]["generated_text"]
    assert [event["token"] for event in events] == reply["details"]["tokens"]
    assert events[-1]["details"]["finish_reason"] == reply["details"]["finish_reason"]


async def test_a_stop_string_across_tokens_is_kept_and_ends_the_text():
    async with serving(script_for("abcdefgh")) as client:
        body = {"inputs": "x", "parameters": {"stop": ["cde"], "details": True}}
        _, _, reply = await client.post("/generate", body)

    assert reply["generated_text"] == "abcde"
    assert reply["details"]["finish_reason"] == "stop_sequence"


async def test_a_special_tokens_text_can_be_a_stop_string():
    async with serving(script_for("ab<|end|>cd")) as client:
        body = {"inputs": "x", "parameters": {"stop": ["<|end|>"], "details": True}}
        _, _, reply = await client.post("/generate", body)

    assert reply["generated_text"] == "ab"
    assert reply["details"]["finish_reason"] == "stop_sequence"
    assert reply["details"]["tokens"][-1]["text"] == "<|end|>"


async def test_ignore_eos_goes_on_after_the_end_of_sequence():
    async with serving(script_for("ab", end=True)) as client:
        parameters = {"ignore_eos": True, "max_new_tokens": 4, "details": True}
        _, _, reply = await client.post("/generate", {"inputs": "x", "parameters": parameters})

    assert reply["details"]["finish_reason"] == "length"
    assert reply["details"]["tokens"][2]["id"] == END_ID


@pytest.mark.parametrize("adapter_id", ["", "tiny", None])
async def test_the_served_model_may_be_named_as_the_adapter(adapter_id):
    async with serving() as client:
        parameters = {"adapter_id": adapter_id, "max_new_tokens": 1}
        status, _, _ = await client.post("/generate", {"inputs": "x", "parameters": parameters})

    assert status == 200


async def test_every_sampling_parameter_reaches_the_engine(monkeypatch):
    parameters = {
        "temperature": 0.5,
        "top_k": 7,
        "top_p": 0.875,
        "typical_p": 0.75,
        "min_p": 0.125,
        "repetition_penalty": 1.5,
        "frequency_penalty": -1.0,
        "presence_penalty": 2.0,
        "logit_bias": {"5": -100, "6": 2.5},
        "min_tokens": 2,
        "watermark": True,
        "seed": 2**64 - 1,
    }
    more = {"ignore_eos": True, "top_n_tokens": 4, "max_new_tokens": 9}
    submitted: list[NewRequest] = []
    submit = EngineClient.submit

    def note_and_submit(self: EngineClient, request: NewRequest) -> OpenRequest:
        submitted.append(request)
        return submit(self, request)

    monkeypatch.setattr(EngineClient, "submit", note_and_submit)
    async with serving() as client:
        await client.post("/generate", {"inputs": "x", "parameters": parameters | more})

    [request] = submitted
    biases = {5: -100.0, 6: 2.5}
    expected = SamplingParams(**{**parameters, "do_sample": True, "logit_bias": biases})
    assert request.sampling == expected
    assert (request.ignore_eos, request.top_n_tokens, request.max_new_tokens) == (True, 4, 9)


async def test_without_the_key_parameters_a_request_samples():
    async with serving() as client:
        events = await client.stream("/generate_stream", {"inputs": "x"})
        body = {"inputs": "x", "parameters": {"details": True}}
        _, _, greedy = await client.post("/generate", body)
        switches = {"temperature": 0.7, "top_k": 3, "top_p": 0.5, "typical_p": 0.5, "min_p": 0.1}
        sampled_bodies = [
            {"inputs": "x", "parameters": {"details": True, name: value}}
            for name, value in switches.items()
        ]
        seeds = [
            (await client.post("/generate", sampled))[2]["details"]["seed"]
            for sampled in sampled_bodies
        ]

    assert events[-1]["details"] is None
    assert greedy["details"]["seed"] is None
    assert all(isinstance(seed, int) for seed in seeds)


async def test_the_root_route_replies_a_list_and_streams_if_asked():
    async with serving(script_for("ab")) as client:
        body = {"inputs": "x", "parameters": {"max_new_tokens": 2}}
        _, _, reply = await client.post("/", body)
        events = await client.stream("/", {**body, "stream": True})

    assert reply == [{"generated_text": "xab"}]  # the pipeline tag is unknown: full text
    assert events[-1]["generated_text"] == "xab"


async def test_top_tokens_come_with_each_token_and_their_texts():
    async with serving(script_for("Hi", prompt="x")) as client:
        parameters = {"top_n_tokens": 3, "max_new_tokens": 2, "details": True}
        body = {"inputs": "x", "parameters": parameters}
        _, _, reply = await client.post("/generate", body)
        events = await client.stream("/generate_stream", body)

    details = reply["details"]
    assert list(details)[-1] == "top_tokens"
    assert details["top_tokens"] == [event["top_tokens"] for event in events]
    for token, top in zip(details["tokens"], details["top_tokens"], strict=True):
        assert top[0] == token
        assert [entry["id"] for entry in top] == [token["id"] + i for i in range(3)]
        assert top[1]["text"] == TOKENIZER.decode([token["id"] + 1], skip_special_tokens=False)


async def test_without_top_n_tokens_the_key_is_absent():
    async with serving() as client:
        body = {"inputs": "x", "parameters": {"max_new_tokens": 2, "details": True}}
        _, _, reply = await client.post("/generate", body)
        events = await client.stream("/generate_stream", body)

    assert "top_tokens" not in reply["details"]
    assert all(list(e) == ["index", "token", "generated_text", "details"] for e in events)


@pytest.mark.parametrize("inputs", ["Hello 日本", "x"])
async def test_prompt_details_are_given_per_request_and_turn_details_on(inputs):
    async with serving() as client:
        parameters = {"decoder_input_details": True, "max_new_tokens": 1}
        _, _, reply = await client.post("/generate", {"inputs": inputs, "parameters": parameters})

    prefill = reply["details"]["prefill"]
    assert [list(token) for token in prefill] == [["id", "text", "logprob"]] * len(prefill)
    assert tuple(token["id"] for token in prefill) == ids_of(inputs)
    assert "".join(token["text"] for token in prefill) == inputs
    assert [token["logprob"] for token in prefill] == [None] + [-0.25] * (len(prefill) - 1)


async def test_every_one_of_best_of_has_its_details():
    parameters = {
        "best_of": 2,
        "do_sample": True,
        "max_new_tokens": 3,
        "top_n_tokens": 2,
        "decoder_input_details": True,
        "return_full_text": True,
    }
    async with serving(script_for("abc")) as client:
        _, _, reply = await client.post("/generate", {"inputs": "x", "parameters": parameters})

    details = reply["details"]
    [other] = details["best_of_sequences"]
    assert list(other) == [
        "generated_text", "finish_reason", "generated_tokens", "seed", "prefill", "tokens",
        "top_tokens",
    ]  # fmt: skip
    assert reply["generated_text"] == other["generated_text"] == "xabc"
    for name in ("prefill", "tokens", "top_tokens"):
        assert other[name] == details[name] != []


async def test_best_of_returns_the_others_too():
    async with serving() as client:
        parameters = {"best_of": 2, "do_sample": True, "max_new_tokens": 3, "details": True}
        _, _, reply = await client.post("/generate", {"inputs": "x", "parameters": parameters})

    [other] = reply["details"]["best_of_sequences"]
    assert other["generated_tokens"] == 3
    assert other["seed"] != reply["details"]["seed"]


VALIDATION = [
    ({"temperature": 0}, "`temperature` must be strictly positive"),
    ({"temperature": -1.5}, "`temperature` must be strictly positive"),
    ({"repetition_penalty": 0}, "`repetition_penalty` must be strictly positive"),
    ({"frequency_penalty": 2.1}, "`frequency_penalty` must be >= -2.0 and <= 2.0"),
    ({"top_p": 0}, "`top_p` must be > 0.0 and < 1.0"),
    ({"top_p": 1.1}, "`top_p` must be > 0.0 and < 1.0"),
    ({"typical_p": 1}, "`typical_p` must be > 0.0 and < 1.0"),
    ({"top_k": 0}, "`top_k` must be strictly positive"),
    ({"top_k": -3}, "`top_k` must be strictly positive"),
    ({"max_new_tokens": 0}, "`max_new_tokens` must be strictly positive"),
    ({"stop": list("abcde")}, "`stop` supports up to 4 stop sequences. Given: 5"),
    ({"best_of": 2}, "you must use sampling when `best_of` is > 1"),
    (
        {"best_of": 2, "do_sample": True, "seed": 1},
        "`seed` must not be set when `best_of` > 1",
    ),
    ({"best_of": 3}, "`best_of` must be > 0 and <= 2. Given: 3"),
    ({"top_n_tokens": 6}, "`top_n_tokens` must be >= 0 and <= 5. Given: 6"),
    ({"truncate": 0}, "`truncate` must be strictly positive and less than 90. Given: 0"),
    ({"truncate": 91}, "`truncate` must be strictly positive and less than 90. Given: 91"),
    (
        {"max_new_tokens": 100},
        "`inputs` tokens + `max_new_tokens` must be <= 100. "
        "Given: 1 `inputs` tokens and 100 `max_new_tokens`",
    ),
    ({"adapter_id": "a" * 90}, f"`adapter_id` is not served here: {'a' * 80}…"),
    ({"presence_penalty": -2.1}, "`presence_penalty` must be >= -2.0 and <= 2.0"),
    ({"min_p": 1.1}, "`min_p` must be >= 0.0 and <= 1.0"),
    ({"min_p": -0.1}, "`min_p` must be >= 0.0 and <= 1.0"),
    (
        {"min_tokens": 8, "max_new_tokens": 7},
        "`min_tokens` must be <= `max_new_tokens`. Given: 8 `min_tokens` and 7 `max_new_tokens`",
    ),
    (
        {"logit_bias": {"3": 1, str(TOKENIZER.vocab_size): 1}},
        f"`logit_bias` holds a token id that is not in the vocabulary: {TOKENIZER.vocab_size}",
    ),
    (
        {"logit_bias": {"-1": 1}},
        "`logit_bias` holds a token id that is not in the vocabulary: -1",
    ),
    (
        {"logit_bias": {"٣": 1}},
        "`logit_bias` holds a token id that is not in the vocabulary: ٣",
    ),
    (
        {"logit_bias": {"3": 100.5}},
        "`logit_bias` must be >= -100.0 and <= 100.0. Given: 100.5 for token id 3",
    ),
    (
        {"logit_bias": {str(i): 1 for i in range(1025)}},
        "`logit_bias` supports up to 1024 token ids. Given: 1025",
    ),
    # The order of the checks, each of the first kind wrong together with the next.
    ({"top_p": 0, "temperature": 0}, "`temperature` must be strictly positive"),
    ({"top_k": 0, "typical_p": 0}, "`typical_p` must be > 0.0 and < 1.0"),
    ({"max_new_tokens": 0, "top_k": 0}, "`top_k` must be strictly positive"),
    (
        {"stop": list("abcde"), "max_new_tokens": 0},
        "`max_new_tokens` must be strictly positive",
    ),
    (
        {"top_n_tokens": 6, "truncate": 0},
        "`top_n_tokens` must be >= 0 and <= 5. Given: 6",
    ),
    (
        {"grammar": {"type": "choice", "value": []}, "max_new_tokens": 100},
        "`inputs` tokens + `max_new_tokens` must be <= 100. "
        "Given: 1 `inputs` tokens and 100 `max_new_tokens`",
    ),
]


async def test_parameters_out_of_range_are_refused_with_their_texts():
    async with serving() as client:
        for parameters, text in VALIDATION:
            body = {"inputs": "x", "parameters": parameters}
            status, _, reply = await client.post("/generate", body)

            error = {"error": f"Input validation error: {text}", "error_type": "validation"}
            assert (status, reply) == (422, error), parameters
        assert (
            await client.metric('tgi_request_failure{err="validation"}') == len(VALIDATION) - 1
        )  # the limit on best_of is checked before a request is counted
        assert await client.metric('tgi_batch_inference_count{method="prefill"}') == 0


@pytest.mark.parametrize(
    ("inputs", "text"),
    [
        ("", "`inputs` cannot be empty"),
        ("😀" * 24, "`inputs` must have less than 90 tokens. Given: 96"),
    ],
)
async def test_prompts_that_are_empty_or_too_long_are_refused(inputs, text):
    async with serving(limits={"max_total_tokens": 200}) as client:
        status, _, reply = await client.post(
            "/generate", {"inputs": inputs, "parameters": {"max_new_tokens": 1}}
        )
        events = await client.stream("/generate_stream", {"inputs": inputs})

    error = {"error": f"Input validation error: {text}", "error_type": "validation"}
    assert (status, reply) == (422, error)
    assert events == [error]


async def test_a_prompt_far_over_the_limit_is_refused_without_counting_all_of_it(monkeypatch):
    lengths: list[int] = []
    encode = Tokenizer.encode

    def note_and_encode(self: Tokenizer, text: str, *, add_special_tokens: bool) -> list[int]:
        lengths.append(len(text))
        return encode(self, text, add_special_tokens=add_special_tokens)

    monkeypatch.setattr(Tokenizer, "encode", note_and_encode)
    async with serving(limits={"max_total_tokens": 200}) as client:
        body = {"inputs": "ab" * 500_000, "parameters": {"max_new_tokens": 7}}
        status, _, reply = await client.post("/generate", body)
        body["parameters"]["truncate"] = 50
        truncated, _, _ = await client.post("/generate", body)

    assert (status, reply["error"]) == (
        422,
        "Input validation error: `inputs` tokens + `max_new_tokens` must be <= 200. "
        "Given: more than 200 `inputs` tokens and 7 `max_new_tokens`",
    )
    assert truncated == 200
    assert lengths == [1_000_000]


async def test_a_prompt_over_the_limit_is_refused_by_its_beginning(monkeypatch):
    monkeypatch.setattr(TOKENIZER, "bounds", None)  # as for one that drops some of a text
    async with serving(limits={"max_total_tokens": 200}) as client:
        body = {"inputs": "ab" * 500_000, "parameters": {"max_new_tokens": 7}}
        status, _, reply = await client.post("/generate", body)

    assert status == 422
    assert "Given: more than 1600 `inputs` tokens" in reply["error"]


async def test_with_strict_lengths_all_of_max_new_tokens_must_fit():
    limits = {"max_total_tokens": 2000, "max_input_tokens": 1000, "strict_lengths": True}
    async with serving(limits=limits) as client:
        status, _, reply = await client.post(
            "/generate", {"inputs": "x", "parameters": {"max_new_tokens": 10_000}}
        )

    assert status == 422
    assert reply["error"].endswith("Given: 1 `inputs` tokens and 10000 `max_new_tokens`")


async def test_a_stream_refuses_best_of_and_prompt_details():
    async with serving() as client:
        for parameters, text in (
            ({"best_of": 2}, "`best_of` != 1 is not supported when streaming tokens"),
            (
                {"decoder_input_details": True},
                "`decoder_input_details` == true is not supported when streaming tokens",
            ),
        ):
            body = {"inputs": "x", "parameters": parameters}
            [event] = await client.stream("/generate_stream", body)
            assert event["error"] == f"Input validation error: {text}"


async def test_null_and_neutral_values_mean_absent():
    parameters = {
        "top_p": 1.0,
        "typical_p": None,
        "temperature": None,
        "stop": None,
        "details": True,
        "do_sample": None,
        "watermark": None,
        "seed": 0,
        "max_new_tokens": 1,
        "unknown": {"x": 1},
    }
    async with serving() as client:
        status, _, reply = await client.post("/generate", {"inputs": "x", "parameters": parameters})

    assert status == 200
    assert reply["details"]["seed"] is None


async def test_old_clients_stop_sequences_is_an_alias():
    async with serving(script_for("abcdef")) as client:
        body = {"inputs": "x", "parameters": {"stop_sequences": ["c"]}}
        _, _, reply = await client.post("/generate", body)

    assert reply["generated_text"] == "abc"


async def test_truncate_keeps_the_last_tokens():
    async with serving() as client:
        body = {"inputs": "😀" * 30, "parameters": {"truncate": 7, "max_new_tokens": 1}}
        _, headers, _ = await client.post("/generate", body)

    assert headers["x-prompt-tokens"] == "7"


async def test_more_tokens_than_fit_end_with_length_at_the_limit():
    async with serving(limits={"max_total_tokens": 2000, "max_input_tokens": 1000}) as client:
        parameters = {"max_new_tokens": 10_000, "details": True}
        _, _, reply = await client.post("/generate", {"inputs": "x", "parameters": parameters})

    assert reply["details"]["generated_tokens"] == 1999
    assert reply["details"]["finish_reason"] == "length"


async def test_an_engine_failure_is_a_424_and_an_error_event():
    async with serving(script_for("ab", fail_prompts_of=len(ids_of("bad")))) as client:
        status, _, reply = await client.post("/generate", {"inputs": "bad"})
        events = await client.stream("/generate_stream", {"inputs": "bad"})
        fine, _, _ = await client.post("/generate", {"inputs": "x"})
        failures = await client.metric('tgi_request_failure{err="generation"}')

    error = {
        "error": "Request failed during generation: Server error: as scripted",
        "error_type": "generation",
    }
    assert (status, reply) == (424, error)
    assert events == [error]
    assert fine == 200
    assert failures == 2


_EVERY_FIELD = sorted(GenerateParameters.__struct_fields__)
_ODD_VALUES = [
    *("null", "true", '"x"', "[]", "{}", "-1", "0", "0.5", "2147483648", "4294967296"),
    *("9223372036854775808", "18446744073709551616", "1e308", "-1e308", "5e-324", "1e999", "NaN"),
    *("[null]", '["\\ud800"]', '{"0": 1e308}', '{"x": 1}'),
]


async def test_no_value_of_any_field_is_answered_with_a_server_error():
    async with serving(limits={"max_total_tokens": 95}) as client:
        for field in _EVERY_FIELD:
            for value in _ODD_VALUES:
                raw = f'{{"inputs": "x", "parameters": {{"{field}": {value}}}}}'
                status, _, reply = await client.post("/generate", raw.encode())

                assert status in (200, 400, 422), (field, value, reply)
        assert (await client.get("/health"))[0] == 200
        assert await client.metric("tgi_requests_running") == 0
