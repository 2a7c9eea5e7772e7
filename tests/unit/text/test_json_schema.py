"""What is refused in a JSON schema, where, and how one is narrowed."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.builders.tokenizers import byte_level_tokenizer
from tgi_cli.runtime.text import json_schema
from tgi_cli.runtime.text.grammar import compile_grammar, make_tokenizer
from tgi_cli.runtime.text.json_schema import SchemaError, prepare_schema
from tgi_cli.runtime.text.schema_narrowing import FORMATS
from tgi_cli.runtime.types import Grammar

STRING = {"type": "string"}


def prepared(schema: dict[str, Any]) -> dict[str, Any]:
    prepare_schema(schema)
    return schema


@pytest.mark.parametrize(
    ("schema", "place"),
    [
        ({"not": STRING}, "#/not"),
        ({"properties": {"a/b": {"if": STRING}}}, "#/properties/a~1b/if"),
        ({"properties": {"a": {"items": {"contains": {}}}}}, "#/properties/a/items/contains"),
        ({"uniqueItems": True}, "#/uniqueItems"),
        ({"anyOf": [STRING, {"contains": STRING}]}, "#/anyOf/1/contains"),
        ({"properties": {"a": {"type": "string", "format": "iri"}}}, "#/properties/a/format"),
        ({"$ref": "http://example.com/schema"}, "#/$ref"),
        ({"$defs": {"a": {"propertyNames": {}}}, "$ref": "#/$defs/a"}, "#/$defs/a/propertyNames"),
        ({"prefixItems": [STRING, {"$id": "x"}]}, "#/prefixItems/1/$id"),
        ({"type": "object", "minProperties": 2}, "#/minProperties"),
    ],
)  # fmt: skip
def test_what_cannot_be_enforced_is_refused_with_its_place(schema, place):
    with pytest.raises(SchemaError) as caught:
        prepare_schema(schema)

    assert str(caught.value).endswith(f"(at {place})")
    assert not caught.value.is_malformed


@pytest.mark.parametrize(
    ("schema", "place"),
    [
        ({"type": "strin"}, "#/type"),
        ({"type": []}, "#/type"),
        ({"properties": []}, "#/properties"),
        ({"properties": {"a": 5}}, "#/properties/a"),
        ({"items": [STRING]}, "#/items"),
        ({"anyOf": []}, "#/anyOf"),
        ({"anyOf": STRING}, "#/anyOf"),
        ({"enum": "a"}, "#/enum"),
        ({"required": "a"}, "#/required"),
        ({"minLength": -1}, "#/minLength"),
        ({"minLength": True}, "#/minLength"),
        ({"minimum": "3"}, "#/minimum"),
        ({"multipleOf": 0}, "#/multipleOf"),
        ({"pattern": 3}, "#/pattern"),
        ({"$ref": "#/$defs/missing"}, "#/$ref"),
        ({"$ref": "#/anyOf/7", "anyOf": [STRING]}, "#/$ref"),
    ],
)
def test_what_is_no_schema_is_refused_with_its_place(schema, place):
    with pytest.raises(SchemaError) as caught:
        prepare_schema(schema)

    assert str(caught.value).endswith(f"(at {place})")
    assert caught.value.is_malformed


def test_schemas_that_no_reference_reaches_are_not_looked_at():
    prepare_schema({"$defs": {"unused": {"not": STRING}}, "type": "null"})


def test_schema_that_refers_to_itself_is_walked_once():
    node: dict[str, Any] = {"properties": {"next": {"anyOf": [{"$ref": "#"}, {"type": "null"}]}}}

    found = prepare_schema(node)

    assert len(found) == 4


def test_object_with_properties_is_closed():
    schema = prepared({"properties": {"a": {"properties": {"b": STRING}}}})

    assert schema["type"] == "object"
    assert schema["additionalProperties"] is False
    assert schema["properties"]["a"]["additionalProperties"] is False


@pytest.mark.parametrize(
    "schema",
    [
        {"properties": {"a": STRING}, "additionalProperties": STRING},
        {"properties": {"a": STRING}, "required": ["b"]},
        {"properties": {"a": STRING}, "patternProperties": {"^b": STRING}},
        {"properties": {"a": STRING}, "anyOf": [{"required": ["a"]}, {"required": ["b"]}]},
        {"properties": {"a": STRING}, "$ref": "#/$defs/b", "$defs": {"b": {"required": ["b"]}}},
        {"allOf": [{"properties": {"a": STRING}}, {"properties": {"b": STRING}}]},
    ],
)
def test_object_stays_open_where_closing_it_could_rule_out_everything(schema):
    closed = json.dumps(prepared(schema)).count('"additionalProperties": false')

    assert closed == 0


def test_options_of_the_compiler_are_not_the_client_s():
    assert prepared({"type": "null", "x-guidance": {"lenient": True}}) == {"type": "null"}


def test_formats_are_those_that_the_compiler_enforces():
    assets = byte_level_tokenizer()
    tokenizer = make_tokenizer(assets.tokenizer_json, 301, (300,))
    asked = {"idn-email", "idn-hostname", "iri", "uri-reference", "regex", "json-pointer", *FORMATS}

    def is_known(name: str) -> bool:
        schema = json.dumps({"type": "string", "format": name})
        return not compile_grammar(Grammar("json_schema", schema), tokenizer).is_error()

    assert {name for name in asked if is_known(name)} == FORMATS


def test_keywords_that_the_compiler_does_not_know_are_refused_before_it():
    assets = byte_level_tokenizer()
    tokenizer = make_tokenizer(assets.tokenizer_json, 301, (300,))
    # Every keyword of the draft that asserts or applies, with a value of the right kind.
    keywords: dict[str, Any] = {
        "contains": STRING, "minContains": 1, "maxContains": 1, "uniqueItems": True,
        "propertyNames": STRING, "dependentRequired": {"a": ["b"]}, "dependentSchemas": {},
        "unevaluatedItems": False, "unevaluatedProperties": False, "not": STRING, "if": STRING,
        "then": STRING, "else": STRING, "dependencies": {}, "$dynamicRef": "#a",
    }  # fmt: skip

    for keyword, value in keywords.items():
        schema = {keyword: value}
        compiled = compile_grammar(Grammar("json_schema", json.dumps(schema)), tokenizer)
        assert compiled.is_error(), f"{keyword} is enforced now: allow it"
        with pytest.raises(SchemaError):
            prepare_schema(schema)


def test_depth_and_number_of_schemas_are_bounded(monkeypatch):
    deep: dict[str, Any] = {}
    for _ in range(json_schema.MAX_DEPTH + 2):
        deep = {"items": deep}

    with pytest.raises(SchemaError, match="deeper"):
        prepare_schema(deep)
    monkeypatch.setattr(json_schema, "MAX_SCHEMAS", 10)
    with pytest.raises(SchemaError, match="more than"):
        prepare_schema({"anyOf": [{"minimum": i} for i in range(20)]})


@pytest.mark.parametrize(
    ("text", "is_allowed"),
    [
        ('{"a":1,"b":[2,3]}', True),
        ('{"a": 1, "b": [2, 3]}', True),
        ('{"a":  1', False),
        ('{ "a"', False),
        ('{"a" :', False),
        ('{\n"a"', False),
        ('{"a":\t1', False),
    ],
)
def test_white_space_is_one_space_after_commas_and_colons(text, is_allowed):
    integer = {"type": "integer"}
    schema = prepared({"properties": {"a": integer, "b": {"items": integer}}, "required": ["a"]})
    tokenizer = make_tokenizer(byte_level_tokenizer().tokenizer_json, 301, (300,))
    matcher = compile_grammar(Grammar("json_schema", json.dumps(schema)), tokenizer)

    ids = tokenizer.tokenize_str(text)

    assert (matcher.try_consume_tokens(ids) == len(ids)) is is_allowed
