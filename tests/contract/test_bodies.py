"""How the fields of a body are read, on every route: spec/http-api.md section 2.1."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.builders.router import script_for, serving
from tgi_cli.runtime.router.bodies import decode_body
from tgi_cli.runtime.router.schemas.chat import ChatRequest
from tgi_cli.runtime.router.schemas.generate import GenerateParameters, GenerateRequest
from tgi_cli.runtime.router.schemas.kserve import InferRequest
from tgi_cli.runtime.router.schemas.vertex import VertexInstance

MESSAGES = [{"role": "user", "content": "x"}]
INFER = {
    "id": "1",
    "inputs": [{"name": "i", "shape": [1, 1], "datatype": "BYTES", "data": [120]}],
    "outputs": [{"name": "o"}],
}
SHORT = {"max_new_tokens": 1}
CALLS = [
    ("/generate", {"inputs": "x", "parameters": SHORT}),
    ("/generate_stream", {"inputs": "x", "parameters": SHORT}),
    ("/", {"inputs": "x", "parameters": SHORT}),
    ("/v1/completions", {"prompt": "x", "max_tokens": 1}),
    ("/v1/chat/completions", {"messages": MESSAGES, "max_tokens": 1}),
    ("/invocations", {"inputs": "x", "parameters": SHORT}),
    ("/vertex", {"instances": [{"inputs": "x", "parameters": SHORT}]}),
    ("/v2/models/m/versions/1/infer", {**INFER, "parameters": SHORT}),
    ("/tokenize", {"inputs": "x"}),
    ("/chat_tokenize", {"messages": MESSAGES}),
]


def with_unknown_keys(value):
    """Return `value` with a key that no route knows in each of its objects."""
    if isinstance(value, list):
        return [with_unknown_keys(each) for each in value]
    if isinstance(value, dict):
        inner = {key: with_unknown_keys(each) for key, each in value.items()}
        return {"unheard_of": [{"of": None}], **inner}
    return value


@pytest.mark.parametrize(("path", "body"), CALLS, ids=[path for path, _ in CALLS])
async def test_unknown_keys_are_ignored_everywhere(path, body):
    async with serving() as client:
        status, _, reply = await client.post(path, with_unknown_keys(body))

    assert status == 200, reply


async def test_null_is_absent_for_every_field_of_a_generate_body():
    nulls = dict.fromkeys(GenerateParameters.__struct_fields__)
    body = {"inputs": "x", "stream": None}
    async with serving() as client:
        requests = client.record_requests()
        await client.post("/", {**body, "parameters": nulls})
        await client.post("/", {**body, "parameters": {}})
        await client.post("/", {**body, "parameters": None})

    greedy, empty, absent = (request.sampling for request in requests)
    assert msgspec.structs.replace(greedy, seed=0) == msgspec.structs.replace(empty, seed=0)
    assert (empty.do_sample, absent.do_sample) == (False, True)


async def test_null_is_absent_however_deep_it_stands():
    chat = {"messages": MESSAGES, "max_tokens": 1, "stream": True}
    async with serving() as client:
        events = await client.stream(
            "/v1/chat/completions", {**chat, "stream_options": {"include_usage": None}}
        )

    assert len(events) == 2  # a token and the mark, and no usage between them


@pytest.mark.parametrize(
    ("parameters", "text"),
    [
        ({"temperature": 1e-46}, "`temperature` must be strictly positive"),
        ({"repetition_penalty": 1e-50}, "`repetition_penalty` must be strictly positive"),
        ({"typical_p": 1e-46}, "`typical_p` must be > 0.0 and < 1.0"),
        ({"frequency_penalty": 2.0000001}, None),
        ({"top_p": 1.00000001}, None),
    ],
)
async def test_floats_are_read_as_32_bits(parameters, text):
    async with serving() as client:
        body = {"inputs": "x", "parameters": {**SHORT, **parameters}}
        status, _, reply = await client.post("/generate", body)

    assert status == (200 if text is None else 422)
    assert text is None or reply["error"] == f"Input validation error: {text}"


@pytest.mark.parametrize("temperature", [0, 0.0, -0.0, 1e-46])
async def test_a_temperature_that_is_0_in_32_bits_is_greedy_on_openais_routes(temperature):
    async with serving() as client:
        requests = client.record_requests()
        for path, body in CALLS[3:5]:
            await client.post(path, {**body, "temperature": temperature})

    assert [request.sampling.do_sample for request in requests] == [False, False]


async def test_a_temperature_that_is_1_in_32_bits_does_not_sample():
    async with serving() as client:
        requests = client.record_requests()
        parameters = {**SHORT, "temperature": 1.00000001}
        await client.post("/generate", {"inputs": "x", "parameters": parameters})

    assert not requests[0].sampling.do_sample


@pytest.mark.parametrize(
    ("first", "then", "text"),
    [
        ('"stop":["b"]', '"stop_sequences":["c"]', "abc"),
        ('"stop_sequences":["c"]', '"stop":["b"]', "ab"),
        ('"stop":["b"]', '"stop_sequences":null', "ab"),
        ('"stop_sequences":["c"]', '"stop":null', "abc"),
    ],
)
async def test_of_a_field_and_its_alias_the_later_wins(first, then, text):
    raw = f'{{"parameters":{{{first},"details":true,{then}}},"inputs":"x"}}'
    async with serving(script_for("abcdef")) as client:
        _, _, reply = await client.post("/generate", raw.encode())

    assert reply["generated_text"] == text


@pytest.mark.parametrize("keys", [(2, 3), (3, 2)])
async def test_of_a_chats_two_limits_the_later_wins(keys):
    names = dict(zip(keys, ("max_tokens", "max_completion_tokens"), strict=True))
    first, last = ((names[value], value) for value in keys)
    async with serving() as client:
        requests = client.record_requests()
        body = {"messages": MESSAGES, **dict([first, last])}
        await client.post("/v1/chat/completions", body)

    assert requests[0].max_new_tokens == last[1]


@pytest.mark.parametrize("kind", [GenerateRequest, VertexInstance, InferRequest])
def test_every_body_with_parameters_settles_its_aliases(kind):
    body = {**INFER, "inputs": "x"} if kind is not InferRequest else INFER
    parameters = {"stop": ["a"], "stop_sequences": ["b"]}

    read = decode_body(msgspec.json.encode({**body, "parameters": parameters}), kind)

    assert (read.parameters.stop, read.parameters.stop_sequences) == (["b"], None)


@given(limits=st.permutations(["max_tokens", "max_completion_tokens", "n", "messages"]))
def test_whatever_the_order_of_keys_the_later_limit_wins(limits):
    values = {"max_tokens": 5, "max_completion_tokens": 6, "n": 1, "messages": []}
    raw = msgspec.json.encode({key: values[key] for key in limits})

    read = decode_body(raw, ChatRequest)

    later = max(("max_tokens", "max_completion_tokens"), key=limits.index)
    assert (read.max_tokens, read.max_completion_tokens) == (values[later], None)


def test_a_key_that_is_no_text_beside_an_alias_is_refused_as_no_json():
    raw = b'{"inputs": "x", "parameters": {"\xff": 1, "stop": [], "stop_sequences": []}}'

    with pytest.raises(Exception, match="Failed to parse the request body as JSON") as caught:
        decode_body(raw, GenerateRequest)

    assert caught.value.status == 400
