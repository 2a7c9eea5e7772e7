"""Every route refuses what it can't use: at once, in little memory, the engine untouched.

The bodies are made from the OpenAPI document, so a new field or route is tried too.
"""

from __future__ import annotations

import io
import json
import time
import tracemalloc
from contextlib import suppress
from pathlib import Path

import pytest

from tests.builders.router import serving
from tgi_cli.runtime.router.bodies import DESERIALIZE, BodyError, decode_body
from tgi_cli.runtime.router.json_bounds import (
    MAX_NUMBERS,
    TooDeep,
    TooManyValues,
    check_bounds,
)
from tgi_cli.runtime.router.openapi import openapi_document
from tgi_cli.runtime.router.route_table import ROUTES
from tgi_cli.runtime.router.routes import kserve, vertex
from tgi_cli.runtime.router.schemas.kserve import InferRequest
from tgi_cli.runtime.router.schemas.vertex import VertexRequest

DOCUMENT = openapi_document()
POSTS = [route.path for route in ROUTES if route.body is not None]
MAX_EXTRA_BYTES = 10_000_000
MEGABYTES = 1_900_000

INPUTS = {"inputs": "x"}
CHAT = {"messages": [{"role": "user", "content": "x"}]}
VALID = {
    "/v1/completions": {"prompt": "x"},
    "/v1/chat/completions": CHAT,
    "/chat_tokenize": CHAT,
    "/vertex": {"instances": [INPUTS]},
    "/v2/models/{name}/versions/{version}/infer": {
        "id": "1",
        "inputs": [{"name": "a", "shape": [1], "datatype": "BYTES", "data": [65]}],
        "outputs": [{"name": "b"}],
    },
}
"""A body that each route takes; `INPUTS` where none is named."""

COUNTERS = {"/tokenize", "/chat_tokenize"}
STREAMS = {"/generate_stream"}  # refuse with an event, under status 200
ANY_VALUE = {"seed"}  # fields that are no size: all of 64 bits is welcome
SIZES = (-1, 2**31, 2**32, 2**63, 2**64, 10**30)
TALES = ("Traceback", "site-packages", "tgi_cli", "msgspec", ".py", str(Path.cwd()))
"""What an answer would hold that told something of the server."""

MALFORMED = {
    "truncated": b'{"inputs":"x"',
    "nan": b'{"inputs":"x","parameters":{"temperature":NaN}}',
    "infinity": b'{"inputs":"x","parameters":{"temperature":-Infinity}}',
    "surrogate": b'{"inputs":"\\udc00","prompt":"\\udc00","model":"\\udc00"}',
    "raw_surrogate": b'{"inputs":"\xed\xa0\x80"}',
    "bom": b'\xef\xbb\xbf{"inputs":"x"}',
    "utf16": '{"inputs":"x"}'.encode("utf-16"),
    "control": b'{"inputs":"\x00"}',
    "two": b"{}{}",
    "deep_unknown": b'{"a":' + b"[" * 100_000 + b"]" * 100_000 + b"}",
    "deep_object": b'{"a":' * 100_000 + b"0" + b"}" * 100_000,
    "unclosed": b"[" * 1_000_000,
}
LARGE = {
    "numbers": b"0," * (MEGABYTES // 2),
    "large_numbers": b"999999999," * (MEGABYTES // 10),
    "floats": b"1.5," * (MEGABYTES // 4),
    "strings": b'"ab",' * (MEGABYTES // 5),
    "empty_strings": b'"",' * (MEGABYTES // 3),
    "arrays": b"[]," * (MEGABYTES // 3),
    "objects": b"{}," * (MEGABYTES // 3),
    "nulls": b"null," * (MEGABYTES // 5),
}
"""Insides of arrays of about a million elements."""

OTHER_BOUNDS = {VertexRequest: vertex.MAX_NUMBERS, InferRequest: kserve.MAX_NUMBERS}
LISTS = ("inputs", "messages", "prompt", "instances", "outputs", "tools", "stop", "parameters",
         "response_format", "logit_bias", "tool_choice", "data")  # fmt: skip


def url_of(client, path):
    return client.url + path.replace("{name}", "m").replace("{version}", "1")


def watch_engine(client):
    """Return a list that gets each request that the engine is given."""
    given, submit = [], client.engine.submit
    client.engine.submit = lambda request: given.append(request) or submit(request)
    return given


async def send(client, path, raw):
    headers = {"content-type": "application/json"}
    async with client.session.post(
        url_of(client, path), data=io.BytesIO(raw), headers=headers
    ) as response:
        status, text = response.status, await response.text()
    assert not any(word in text for word in TALES), text
    return status, text


def integers(schema, at=(), depth=0):
    """Yield the place of each integer below `schema`, as keys."""
    if depth > 6:
        return
    if "$ref" in schema:
        name = schema["$ref"].rpartition("/")[2]
        yield from integers(DOCUMENT["components"]["schemas"][name], at, depth + 1)
    for each in schema.get("anyOf", ()):
        yield from integers(each, at, depth + 1)
    if schema.get("type") == "integer":
        yield at
    if schema.get("type") == "array":
        yield from integers(schema.get("items", {}), (*at, 0), depth + 1)
    for name, each in schema.get("properties", {}).items():
        yield from integers(each, (*at, name), depth + 1)


def with_value(body, at, value):
    """Return a copy of `body` with `value` at that place, made of as much as is there."""
    if not at:
        return value
    key, *rest = at
    if isinstance(key, int):
        first = body[0] if isinstance(body, list) and body else None
        return [with_value(first, rest, value)]
    inner = body if isinstance(body, dict) else {}
    return inner | {key: with_value(inner.get(key), rest, value)}


def size_cases():
    for path in POSTS:
        operation = DOCUMENT["paths"][path]["post"]
        schema = operation["requestBody"]["content"]["application/json"]["schema"]
        base = VALID.get(path, INPUTS)
        places = set(integers(schema))
        if path == "/invocations":  # one kind of body at a time
            places = {at for at in places if at[0] == "parameters"}
        for at in sorted(places, key=str):
            if at[-1] not in ANY_VALUE:
                yield pytest.param(path, base, at, id=f"{path}-{'.'.join(map(str, at))}")


@pytest.mark.parametrize(("path", "base", "at"), list(size_cases()))
async def test_sizes_that_no_request_can_have_are_refused(path, base, at):
    async with serving() as client:
        given = watch_engine(client)
        answers = {
            size: await send(client, path, json.dumps(with_value(base, at, size)).encode())
            for size in SIZES
        }

    assert given == []
    for size, (status, text) in answers.items():
        if path in COUNTERS and status == 200:  # parameters must decode and are not used
            assert size in range(-(2**31), 2**64)
        elif path in STREAMS and status == 200:
            assert text.startswith('data: {"error":"Input validation error: `')
        else:
            assert status in (400, 422), (size, text)


@pytest.mark.parametrize("path", POSTS)
async def test_what_is_no_json_is_refused(path):
    async with serving() as client:
        given = watch_engine(client)
        answers = {case: await send(client, path, raw) for case, raw in MALFORMED.items()}

    assert given == []
    for case, (status, text) in answers.items():
        # A field that is missing or mistyped may be seen before what is no JSON is reached.
        assert status in (400, 422), case
        assert text.startswith(("Failed to parse the request body as JSON: ", DESERIALIZE)), case


@pytest.mark.parametrize("path", POSTS)
async def test_a_key_may_be_given_twice(path):
    body = json.dumps(VALID.get(path, INPUTS))
    async with serving() as client:
        status, _ = await send(client, path, f"{body[:-1]},{body[1:]}".encode())

    assert status == 200


async def test_the_later_of_two_equal_keys_wins():
    raw = b'{"inputs":"x","parameters":{"max_new_tokens":3,"details":true,"max_new_tokens":2}}'
    async with serving() as client:
        _, text = await send(client, "/generate", raw)

    assert json.loads(text)["details"]["generated_tokens"] == 2


def decode(raw, kind):
    """Do what a handler does before it knows that a body can be used."""
    with suppress(BodyError, TooDeep, TooManyValues):
        check_bounds(raw, OTHER_BOUNDS.get(kind, MAX_NUMBERS))
        decode_body(raw, kind)


@pytest.mark.parametrize("field", LISTS)
@pytest.mark.parametrize("case", LARGE)
def test_a_million_elements_cost_little_memory(case, field):
    raw = b'{"' + field.encode() + b'":[' + LARGE[case][:-1] + b"]}"
    kinds = {
        kind
        for route in ROUTES
        for kind in (route.body if isinstance(route.body, tuple) else (route.body,))
        if kind is not None
    }

    tracemalloc.start()
    for kind in kinds:
        decode(raw, kind)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()

    assert peak < MAX_EXTRA_BYTES


@pytest.mark.parametrize("path", POSTS)
async def test_a_million_elements_are_refused(path):
    body = VALID.get(path, INPUTS)
    key = next(name for name in body if name != "id").encode()
    bodies = {
        case: b'{"id":"1","' + key + b'":[' + inside[:-1] + b"]}" for case, inside in LARGE.items()
    }
    async with serving() as client:
        given = watch_engine(client)
        statuses = {case: (await send(client, path, raw))[0] for case, raw in bodies.items()}

    assert given == []
    # 429: more instances than there are permits.
    assert set(statuses.values()) <= ({422, 429} if path == "/vertex" else {422}), statuses


@pytest.mark.perf
@pytest.mark.parametrize("path", POSTS)
async def test_bad_bodies_are_answered_within_50_ms(path):
    bodies = [*MALFORMED.values(), *(b'{"inputs":[' + each[:-1] + b"]}" for each in LARGE.values())]
    async with serving() as client:
        await send(client, path, b"{}")
        for raw in bodies:
            start = time.perf_counter()
            status, _ = await send(client, path, raw)
            assert status in (400, 422)
            assert time.perf_counter() - start < 0.05, raw[:40]
