"""When `oneOf` is as good as `anyOf`, and that it is never taken for it otherwise."""

from __future__ import annotations

import json
from typing import Any

import jsonschema
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from tgi_cli.runtime.text.json_schema import prepare_schema

INTEGER = {"type": "integer"}
A = {"type": "object", "properties": {"t": INTEGER}, "required": ["t"]}
B = {"type": "object", "properties": {"u": INTEGER}, "required": ["u"]}
OPTIONAL = {"type": "object", "properties": {"t": INTEGER}}
CLOSED = {**OPTIONAL, "additionalProperties": False}


def tagged(*tags: Any, **more: Any) -> dict[str, Any]:
    return {"type": "object", "properties": {"k": {"enum": [*tags]}, **more}, "required": ["k"]}


def is_relaxed(schema: dict[str, Any]) -> bool:
    found = prepare_schema(json.loads(json.dumps(schema)))
    return not any(isinstance(node, dict) and "oneOf" in node for node in found.values())


@pytest.mark.parametrize(
    "branches",
    [
        [{"type": "string"}, INTEGER, {"type": "null"}],
        [{"const": "a"}, {"enum": ["b", 1]}, {"type": "boolean"}],
        [A, B],  # each needs what the other doesn't have
        [CLOSED, B],
        [{"$ref": "#/$defs/a"}, {"$ref": "#/$defs/b"}],
        [tagged("x"), tagged("y", v=INTEGER), {"type": "array"}],
        [
            {"type": "object", "properties": {"in": tagged("x")}, "required": ["in"]},
            {"type": "object", "properties": {"in": tagged("y")}, "required": ["in"]},
        ],
        [False, True],
    ],
)
def test_branches_that_exclude_one_another_need_no_one_of(branches):
    assert is_relaxed({"properties": {"a": {"oneOf": branches}}, "$defs": {"a": A, "b": B}})


@pytest.mark.parametrize(
    "branches",
    [
        [INTEGER, {"type": "number"}],
        [{"const": 1}, {"enum": [True, 2]}],  # equal to Python
        [OPTIONAL, B],  # as it was written the first takes what matches the second
        [A, {**B, "properties": {"t": INTEGER, "u": INTEGER}}],
        [{"properties": {"t": INTEGER}}, {"type": "string"}],  # the first takes strings too
        [tagged("x"), tagged("x", "y")],
        [tagged("x"), {"type": "object", "additionalProperties": False}, {}],
        [{"$ref": "#"}, INTEGER],
        [True, INTEGER],
    ],
)
def test_branches_that_may_overlap_keep_it(branches):
    assert not is_relaxed({"properties": {"a": {"oneOf": branches}}})


def test_a_reference_into_a_one_of_still_finds_it():
    schema = {"properties": {"a": {"oneOf": [A, B]}, "b": {"$ref": "#/properties/a/oneOf/0"}}}

    assert not is_relaxed(schema)


SCALARS = [None, True, 0, 1, "x"]
MEMBERS = [[], [("t", 0)], [("t", "x")]]
VALUES = [
    *SCALARS,
    [],
    *(dict(pairs) for pairs in MEMBERS),
    *(dict([*pairs, ("u", value)]) for pairs in MEMBERS for value in (0, "x")),
]
leaves = st.sampled_from([INTEGER, {"type": "string"}, {"const": 0}, {"enum": ["x", 1]}, True])
branch = leaves | st.builds(
    lambda properties, required, closed: {
        "type": "object",
        "properties": properties,
        "required": [key for key in required if key in properties],
        **closed,
    },
    st.dictionaries(st.sampled_from("tu"), leaves, max_size=2),
    st.sets(st.sampled_from("tu")).map(sorted),
    st.sampled_from([{}, {"additionalProperties": False}, {"additionalProperties": True}]),
)


@given(branches=st.lists(branch, min_size=1, max_size=3))
def test_what_matches_a_relaxed_schema_matches_the_original(branches):
    original = {"oneOf": branches}
    narrowed = json.loads(json.dumps(original))
    prepare_schema(narrowed)

    assume("anyOf" in narrowed)
    for value in filter(lambda value: matches(value, narrowed), VALUES):
        assert matches(value, original), (value, narrowed)


def matches(value: Any, schema: dict[str, Any]) -> bool:
    return jsonschema.Draft202012Validator(schema).is_valid(value)
