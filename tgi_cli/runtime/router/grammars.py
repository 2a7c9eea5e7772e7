"""The shapes in which clients ask for guided output, and the `Grammar` that each means.

TGI's `grammar` and OpenAI's `response_format` are taken in the same places
(spec/http-api.md section 12). Whether the grammar itself can be used is `GrammarChecker`'s.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from tgi_cli.errors import ValidationError
from tgi_cli.runtime.types import Grammar

Json = dict[str, Any]

_TYPES = ("text", "json", "json_object", "json_schema", "regex", "choice", "lark")
_MISSING = object()
_ANY_OBJECT: Json = {"type": "object"}


def check_shape(name: str, raw: Json | None) -> None:
    """Return if the field `name` has a known type and the value that belongs to it, or is absent.

    Raises:
        ValueError: it hasn't, which is a failure to decode the body.
    """
    if raw is None:
        return
    if "type" not in raw:
        raise ValueError(f"`{name}`: missing field `type`")
    kind = raw["type"]
    if kind not in _TYPES:
        raise ValueError(f"`{name}`: unknown variant, expected one of {', '.join(_TYPES)}")
    needs_value = kind in ("json", "regex", "choice", "lark")
    if kind == "json_schema":
        needs_value = raw.get("json_schema") is None
    if needs_value and "value" not in raw:
        raise ValueError(f"`{name}`: missing field `value`")
    if kind in ("regex", "lark") and not isinstance(raw["value"], str):
        raise ValueError(f"`{name}`: the value of a {kind} grammar must be a string")


def parse(raw: Json) -> Grammar | None:
    """Return what `raw`, whose shape was checked, asks for; None for text as it comes.

    Raises:
        ValidationError: what it holds is no grammar, in the words of section 6.4.
    """
    kind, value = raw["type"], raw.get("value", _MISSING)
    match kind:
        case "text":
            return None
        case "json" | "json_object":
            if kind == "json_object" and value in (_MISSING, None):
                return _of_schema(_ANY_OBJECT)
            if not isinstance(value, str | dict):
                raise ValidationError("grammar is not supported")
            return _of_schema(_with_properties(_decoded(value)))
        case "json_schema":
            inner = raw.get("json_schema")
            return _of_schema(_inner_schema(value if inner is None else inner))
        case "regex" | "lark":
            return Grammar(kind, value)
        case "choice":
            return _of_choices(value)
    raise AssertionError(f"a shape that wasn't checked: {kind}")


def parse_guided(body: Mapping[str, Any]) -> Json | None:
    """Return the grammar object that other servers' `guided_…` fields in `body` mean, or None.

    Raises:
        ValidationError: there is more than one.
    """
    shapes = {"json": "json_schema", "regex": "regex", "choice": "choice", "grammar": "lark"}
    asked = [name for name in shapes if body.get(f"guided_{name}") is not None]
    if len(asked) > 1:
        raise _invalid(f"`guided_{asked[0]}` and `guided_{asked[1]}` exclude one another")
    for name in asked:
        value = body[f"guided_{name}"]
        if name == "json":
            value = {"schema": _decoded(value)}
        return {"type": shapes[name], "value": value}
    return None


def _of_schema(schema: object) -> Grammar:
    if not isinstance(schema, dict):
        raise _invalid("the schema must be an object")
    return Grammar("json_schema", _encode(schema))


def _of_choices(value: object) -> Grammar:
    is_good = isinstance(value, list) and bool(value) and all(isinstance(v, str) for v in value)
    if not is_good:
        raise _invalid("the value of a choice grammar must be a list of strings")
    return Grammar("choice", _encode(value))


def _encode(value: object) -> str:
    try:
        return msgspec.json.encode(value).decode()
    except (UnicodeEncodeError, RecursionError) as exc:
        raise _invalid("it holds a lone surrogate or is nested too deeply") from exc


def _decoded(value: object) -> object:
    """Return a schema, which may be given as its JSON text."""
    if not isinstance(value, str):
        return value
    try:
        return msgspec.json.decode(value)
    except (msgspec.DecodeError, RecursionError) as exc:
        raise _invalid(f"the schema's text is not JSON: {exc}") from exc


def _with_properties(schema: object) -> object:
    if not isinstance(schema, dict) or "properties" not in schema:
        raise ValidationError("Grammar must have a 'properties' field")
    return schema


def _inner_schema(inner: object) -> object:
    if not isinstance(inner, dict) or "schema" not in inner:
        raise _invalid("a json_schema must be an object with a `schema`")
    return _decoded(inner["schema"])


def _invalid(reason: str) -> ValidationError:
    return ValidationError(f"grammar is not valid: {reason}")
