"""Narrow a checked JSON schema to what guided decoding works on.

A model must not wander off where the schema leaves everything open: an object with `properties`
holds those only, and a schema with `properties` or `items` is an object or an array even if it
doesn't say so. What matches the narrowed schema matches the original.

`oneOf` becomes `anyOf` where no value of one narrowed branch matches another as it was written. The
compiler takes `oneOf` itself where types or constants tell the branches apart; here objects are
told apart too, by the keys that they need. Where branches may overlap, `oneOf` stays as it is.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import Any

Node = dict[str, Any]

FORMATS = frozenset(
    ("date-time", "time", "date", "duration", "email", "hostname", "ipv4", "ipv6", "uri", "uuid")
)
ONE = ("items", "additionalProperties")
LISTS = ("allOf", "anyOf", "oneOf", "prefixItems")
MAPS = ("properties", "patternProperties")
COUNTS = ("minLength", "maxLength", "minItems", "maxItems", "minProperties", "maxProperties")
NUMBERS = ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf")
_ASSERTS = frozenset(
    (*ONE, *LISTS, *MAPS, *COUNTS, *NUMBERS, "required", "enum", "const", "pattern", "format")
) | {"$ref"}
_MAX_BRANCHES = 64  # of a `oneOf`: each is compared with every other
_MAX_COMPARED_DEPTH = 2
_MAX_REFERENCES = 8


def narrow(nodes: Sequence[Node], resolve: Callable[[str], Any]) -> None:
    """Narrow `nodes`, which are all schemas of a document, in place.

    `resolve` returns what a `$ref` in one of them names.
    """
    narrowing = _Narrowing(resolve, may_close=not any(map(_combines, nodes)))
    # A reference into a `oneOf` must find it where it was.
    if not any("/oneOf/" in node.get("$ref", "") for node in nodes):
        for node in nodes:
            narrowing.relax_one_of(node)
    for node in nodes:
        narrowing.apply(node)


def _combines(node: Node) -> bool:
    """Whether what `node` itself asserts is joined with what another schema does."""
    own = (node.keys() & _ASSERTS) - {"type"}
    joined = own & {"allOf", "anyOf", "oneOf", "$ref"}
    return bool(joined) and (len(own) > 1 or len(node.get("allOf", ())) > 1)


class _Narrowing:
    def __init__(self, resolve: Callable[[str], Any], *, may_close: bool) -> None:
        self._resolve = resolve
        self._may_close = may_close

    def apply(self, node: Node) -> None:
        added = _type_to_add(node)
        if added is not None:
            node["type"] = added
        if self._gets_closed(node):
            node["additionalProperties"] = False
        if "format" in node and node["format"] not in FORMATS:
            del node["format"]  # of numbers: it asserts nothing
        node.pop("uniqueItems", None)  # false

    def _gets_closed(self, node: Node) -> bool:
        is_listed = set(node.get("required", ())) <= node.get("properties", {}).keys()
        is_open = not node.keys() & {"additionalProperties", "patternProperties", "minProperties"}
        return self._may_close and "properties" in node and is_listed and is_open

    def relax_one_of(self, node: Node) -> None:
        """Have `node`, not yet narrowed, say `anyOf` if that will be the same."""
        branches = node.get("oneOf", ())
        if not 0 < len(branches) <= _MAX_BRANCHES or "anyOf" in node:
            return
        pairs = itertools.permutations(branches, 2)
        if all(self._excludes(one, other, _MAX_COMPARED_DEPTH) for one, other in pairs):
            node["anyOf"] = node.pop("oneOf")

    def _excludes(self, narrowed: Any, written: Any, depth: int) -> bool:
        """Whether it is certain that no value of `narrowed`, once it is that, matches `written`."""
        one, other = self._follow(narrowed), self._follow(written)
        if one is False or other is False:
            return True
        if not isinstance(one, dict) or not isinstance(other, dict):
            return False
        values, others = _values(one), _values(other)
        if values is not None and others is not None:
            return not any(value in others for value in values)
        types, other_types = _types(one, _type_to_add(one)), _types(other)
        if types is not None and other_types is not None and not types & other_types:
            return True
        return types == {"object"} and self._excludes_object(one, other, depth)

    def _excludes_object(self, one: Node, other: Node, depth: int) -> bool:
        if (self._gets_closed(one) or _is_closed(one)) and _needs_more(other, one):
            return True
        if _is_closed(other) and _needs_more(one, other):
            return True
        return depth > 0 and any(
            self._excludes(
                one.get("properties", {}).get(key, True), other["properties"][key], depth - 1
            )
            for key in {*one.get("required", ())} & other.get("properties", {}).keys()
        )

    def _follow(self, schema: Any) -> Any:
        for _ in range(_MAX_REFERENCES):
            if not isinstance(schema, dict) or "$ref" not in schema:
                return schema
            # What stands beside a reference allows less still.
            schema = self._resolve(schema["$ref"])
        return True


def _is_closed(node: Node) -> bool:
    return node.get("additionalProperties") is False and "patternProperties" not in node


def _needs_more(node: Node, closed: Node) -> bool:
    """Whether `node` needs a key that `closed` doesn't allow."""
    return not {*node.get("required", ())} <= closed.get("properties", {}).keys()


def _type_to_add(node: Node) -> str | None:
    if "type" not in node and "const" not in node and "enum" not in node:
        if "properties" in node:
            return "object"
        if "items" in node or "prefixItems" in node:
            return "array"
    return None


def _values(node: Node) -> list[Any] | None:
    if "const" in node:
        return [node["const"]]
    values: list[Any] | None = node.get("enum")
    return values


def _types(node: Node, added: str | None = None) -> set[str] | None:
    """Return the types that a value may have; an integer is a number too. None: any."""
    if "type" in node or added is not None:
        types: Any = node.get("type", added)
        names = {types} if isinstance(types, str) else {*types}
        return names | ({"integer"} if "number" in names else set())
    values = _values(node)
    return None if values is None else {name for value in values for name in _types_of(value)}


def _types_of(value: object) -> set[str]:
    if isinstance(value, bool):
        return {"boolean"}
    if isinstance(value, int | float):
        return {"integer", "number"}
    names = {str: "string", list: "array", dict: "object", type(None): "null"}
    return {names[type(value)]}
