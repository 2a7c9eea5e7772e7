"""The shapes of guided output on the wire: spec/http-api.md sections 6.4 (24 to 26) and 12."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.builders.router import script_for, serving
from tgi_cli.errors import ValidationError
from tgi_cli.runtime.router.bodies import DESERIALIZE
from tgi_cli.runtime.router.grammars import check_shape, parse, parse_guided
from tgi_cli.runtime.types import Grammar

OBJECT: dict[str, Any] = {"type": "object", "properties": {"b": {}, "a": {}}}


def schema(value: Any) -> Grammar:
    return Grammar("json_schema", json.dumps(value, separators=(",", ":")))


@pytest.mark.parametrize(
    ("raw", "grammar"),
    [
        # TGI's.
        ({"type": "json", "value": OBJECT}, schema(OBJECT)),
        ({"type": "json", "value": json.dumps(OBJECT)}, schema(OBJECT)),
        ({"type": "json_object", "value": OBJECT}, schema(OBJECT)),
        ({"type": "json_schema", "value": {"name": "x", "schema": OBJECT, "strict": True}},
         schema(OBJECT)),
        ({"type": "json_schema", "value": {"schema": OBJECT}}, schema(OBJECT)),
        ({"type": "regex", "value": "[ab]"}, Grammar("regex", "[ab]")),
        # OpenAI's.
        ({"type": "json_schema", "json_schema": {"name": "x", "schema": OBJECT, "strict": True}},
         schema(OBJECT)),
        ({"type": "json_schema", "json_schema": {"name": "x", "schema": {"type": "integer"}}},
         schema({"type": "integer"})),
        ({"type": "json_object"}, schema({"type": "object"})),
        ({"type": "text"}, None),
        # Ours.
        ({"type": "choice", "value": ["a", "b"]}, Grammar("choice", '["a","b"]')),
        ({"type": "lark", "value": 'start: "a"'}, Grammar("lark", 'start: "a"')),
    ],
)  # fmt: skip
def test_shapes_of_a_grammar(raw, grammar):
    assert parse(raw) == grammar


@pytest.mark.parametrize(
    ("raw", "text"),
    [
        ({"type": "json", "value": 3}, "grammar is not supported"),
        ({"type": "json", "value": {"type": "string"}}, "Grammar must have a 'properties' field"),
        ({"type": "json", "value": "[1]"}, "Grammar must have a 'properties' field"),
        ({"type": "json_object", "value": {}}, "Grammar must have a 'properties' field"),
        ({"type": "json", "value": "{"}, "grammar is not valid: the schema's text is not JSON"),
        ({"type": "json_schema", "json_schema": {"name": "x"}}, "grammar is not valid: a json_sch"),
        ({"type": "json_schema", "value": {"schema": 3}}, "grammar is not valid: the schema must"),
        ({"type": "choice", "value": []}, "grammar is not valid: the value of a choice"),
        ({"type": "choice", "value": ["a", 1]}, "grammar is not valid: the value of a choice"),
        ({"type": "json", "value": None}, "grammar is not supported"),
    ],
)
def test_other_shapes_are_refused_in_tgi_s_words(raw, text):
    check_shape("grammar", raw)
    with pytest.raises(ValidationError) as caught:
        parse(raw)

    assert caught.value.message.startswith(text)


@pytest.mark.parametrize(
    ("raw", "text"),
    [
        ({}, "missing field `type`"),
        ({"type": "yaml", "value": "x"}, "unknown variant, expected one of text, json, "),
        ({"type": []}, "unknown variant, expected one of text, json, "),
        ({"type": None}, "unknown variant, expected one of text, json, "),
        ({"type": "json"}, "missing field `value`"),
        ({"type": "json_schema"}, "missing field `value`"),
        ({"type": "json_schema", "json_schema": None}, "missing field `value`"),
        ({"type": "regex"}, "missing field `value`"),
        ({"type": "regex", "value": 3}, "the value of a regex grammar must be a string"),
        ({"type": "lark", "value": None}, "the value of a lark grammar must be a string"),
        ({"type": "choice"}, "missing field `value`"),
    ],
)
async def test_what_has_no_known_shape_is_not_decoded_whether_streamed_or_not(raw, text):
    messages = [{"role": "user", "content": "x"}]
    calls = [
        ("/generate", {"inputs": "x", "parameters": {"grammar": raw}}, "parameters: `grammar`: "),
        (
            "/generate_stream",
            {"inputs": "x", "parameters": {"grammar": raw}},
            "parameters: `grammar`: ",
        ),
        ("/v1/completions", {"prompt": "x", "grammar": raw}, "body: `grammar`: "),
        (
            "/v1/chat/completions",
            {"messages": messages, "response_format": raw, "stream": True},
            "body: `response_format`: ",
        ),
    ]
    async with serving() as client:
        for path, asked, place in calls:
            status, headers, found = await client.post(path, asked)

            assert status == 422, path
            assert headers["content-type"] == "text/plain; charset=utf-8"
            assert found.startswith(DESERIALIZE + place + text)


@pytest.mark.parametrize(
    ("body", "grammar"),
    [
        ({"guided_json": {"type": "integer"}}, schema({"type": "integer"})),
        ({"guided_json": '{"type":"integer"}'}, schema({"type": "integer"})),
        ({"guided_regex": "a"}, Grammar("regex", "a")),
        ({"guided_choice": ["a"]}, Grammar("choice", '["a"]')),
        ({"guided_grammar": "start: /a/"}, Grammar("lark", "start: /a/")),
    ],
)
def test_guided_fields_of_other_servers(body, grammar):
    raw = parse_guided(body)

    assert raw is not None
    assert parse(raw) == grammar


def test_guided_fields_exclude_one_another():
    assert parse_guided({"guided_json": None}) is None
    with pytest.raises(ValidationError, match="exclude"):
        parse_guided({"guided_json": {}, "guided_regex": "a"})


def body(grammar: Any) -> dict[str, Any]:
    return {"inputs": "x", "parameters": {"max_new_tokens": 3, "grammar": grammar}}


async def test_grammar_reaches_the_engine_ready_to_use():
    async with serving(script_for("abc")) as client:
        status, _, reply = await client.post("/generate", body({"type": "json", "value": OBJECT}))

    assert status == 200, reply


@pytest.mark.parametrize(
    ("grammar", "text"),
    [
        ({"type": "regex", "value": "("}, "grammar is not valid: unclosed group at character 0"),
        (
            {"type": "json", "value": {"properties": {"a": {"not": {}}}}},
            "cannot compile regex from schema: `not` is not supported (at #/properties/a/not)",
        ),
        ({"type": "json", "value": "{}"}, "Grammar must have a 'properties' field"),
    ],
)
async def test_grammar_that_cannot_be_used_is_a_validation_error(grammar, text):
    async with serving() as client:
        status, _, reply = await client.post("/generate", body(grammar))
        events = await client.stream("/generate_stream", body(grammar))

    assert status == 422
    assert reply["error_type"] == "validation"
    assert reply["error"].startswith(f"Input validation error: {text}")
    assert events == [reply]


async def test_grammars_can_be_switched_off():
    async with serving(supports_grammars=False) as client:
        status, _, reply = await client.post("/generate", body({"type": "regex", "value": "a"}))
        status_of_text, _, _ = await client.post("/generate", body({"type": "text"}))

    assert status == 422
    assert reply == {
        "error": "Input validation error: grammar is not supported", "error_type": "validation"
    }  # fmt: skip
    assert status_of_text == 200


async def test_length_is_checked_before_the_grammar():
    request = body({"type": "regex", "value": "("})
    request["parameters"]["max_new_tokens"] = 100

    async with serving() as client:
        _, _, reply = await client.post("/generate", request)

    assert "`inputs` tokens + `max_new_tokens`" in reply["error"]
