"""Check a JSON schema and bring it into the form that guided decoding works on.

`prepare_schema` walks every part that can take effect (from the root, and through `$ref`) and
names the place of what is wrong or can't be enforced: nothing that JSON Schema asserts is passed
over in silence. Keywords that only describe are left alone, as are unknown ones. Draft 2020-12.

It also has the schema narrowed (`schema_narrowing.py`): what matches then matches the original.
"""

from __future__ import annotations

from functools import partial
from typing import Any
from urllib.parse import unquote

from tgi_cli.runtime.text.schema_narrowing import (
    COUNTS,
    FORMATS,
    LISTS,
    MAPS,
    NUMBERS,
    ONE,
    Node,
    narrow,
)

MAX_DEPTH = 64
MAX_SCHEMAS = 20_000

_TYPES = frozenset(("null", "boolean", "object", "array", "number", "string", "integer"))
_UNSUPPORTED = frozenset(
    (
        *("not", "if", "then", "else", "contains", "minContains", "maxContains", "uniqueItems"),
        *("unevaluatedItems", "unevaluatedProperties", "propertyNames", "dependencies"),
        *("dependentRequired", "dependentSchemas", "$dynamicRef", "$dynamicAnchor"),
        *("$recursiveRef", "$recursiveAnchor", "additionalItems"),
    )
)


class SchemaError(Exception):
    """What is wrong with a schema, and where."""

    def __init__(self, pointer: str, reason: str, *, is_malformed: bool = False) -> None:
        super().__init__(f"{reason} (at {pointer})")
        self.is_malformed = is_malformed  # no JSON Schema at all, rather than beyond us


def prepare_schema(root: Node) -> dict[str, Node | bool]:
    """Check `root` and narrow it in place; return its schemas by JSON pointer, inner ones last.

    Raises:
        SchemaError: it isn't a JSON schema, or asserts what can't be enforced.
    """
    for keyword in ("$schema", "$id", "x-guidance"):  # the last would change the compiler's options
        root.pop(keyword, None)
    walk = _Walk(root)
    walk.run()
    nodes = [node for node in walk.found.values() if isinstance(node, dict)]
    narrow(nodes, partial(walk.resolve, "#"))
    return walk.found


class _Walk:
    """Visits what can take effect. `found` holds each schema once, even if it refers to itself."""

    def __init__(self, root: Node) -> None:
        self._root = root
        self._seen: set[int] = set()
        self._todo: list[tuple[str, Any, int]] = [("#", root, 0)]
        self.found: dict[str, Node | bool] = {}

    def run(self) -> None:
        while self._todo:
            pointer, node, depth = self._todo.pop()
            if isinstance(node, bool):
                self.found[pointer] = node
                continue
            if not isinstance(node, dict):
                raise _malformed(pointer, "a schema must be an object or a boolean")
            if id(node) in self._seen:
                continue
            self._seen.add(id(node))
            self.found[pointer] = node
            if depth > MAX_DEPTH:
                raise SchemaError(pointer, f"schemas are nested deeper than {MAX_DEPTH}")
            if len(self.found) > MAX_SCHEMAS:
                raise SchemaError(pointer, f"there are more than {MAX_SCHEMAS} schemas")
            _check_keywords(pointer, node)
            self._add_children(pointer, node, depth + 1)

    def _add_children(self, pointer: str, node: Node, depth: int) -> None:
        for keyword in ONE:
            if keyword in node:
                self._todo.append((f"{pointer}/{keyword}", node[keyword], depth))
        for keyword in LISTS:
            for index, child in enumerate(node.get(keyword, ())):
                self._todo.append((f"{pointer}/{keyword}/{index}", child, depth))
        for keyword in MAPS:
            for name, child in node.get(keyword, {}).items():
                self._todo.append((f"{pointer}/{keyword}/{_escape(name)}", child, depth))
        if "$ref" in node:
            target = node["$ref"]
            self._todo.append((target, self.resolve(pointer, target), depth))

    def resolve(self, pointer: str, target: str) -> Any:
        """Return what `target` names. Raises `SchemaError` at `pointer`, where it is named."""
        if target != "#" and not target.startswith("#/"):
            raise SchemaError(f"{pointer}/$ref", "only references within the document are followed")
        found: Any = self._root
        for part in unquote(target).split("/")[1:]:
            name = part.replace("~1", "/").replace("~0", "~")
            if isinstance(found, dict) and name in found:
                found = found[name]
            elif isinstance(found, list) and name.isascii() and name.isdigit():
                found = found[int(name)] if int(name) < len(found) else None
            else:
                found = None
            if found is None:
                raise _malformed(f"{pointer}/$ref", f"{target} doesn't exist")
        return found


def _check_keywords(pointer: str, node: Node) -> None:
    for keyword, value in node.items():
        place = f"{pointer}/{_escape(keyword)}"
        if keyword in _UNSUPPORTED and not (keyword == "uniqueItems" and value is False):
            raise SchemaError(place, f"`{keyword}` is not supported")
        if keyword in ("$id", "$anchor") and pointer != "#":
            raise SchemaError(place, f"`{keyword}` is not supported inside of a schema")
        problem = _problem(keyword, value)
        if problem is not None:
            raise _malformed(place, f"`{keyword}` must be {problem}")
    if node.get("minProperties", 0) > 1 and node.get("additionalProperties") is not False:
        # Nothing keeps an open object from saying one key twice.
        raise SchemaError(
            f"{pointer}/minProperties",
            "`minProperties` above 1 is not supported without `additionalProperties`: false",
        )
    _check_format(pointer, node)


def _check_format(pointer: str, node: Node) -> None:
    if "format" not in node or node["format"] in FORMATS:
        return
    types = node.get("type", "string")
    if "string" in (types if isinstance(types, list) else [types]):
        raise SchemaError(f"{pointer}/format", f"format {node['format']!r} is not supported")


def _problem(keyword: str, value: Any) -> str | None:
    """Return what `keyword` must be, if `value` isn't that."""
    if keyword == "type":
        types = value if isinstance(value, list) else [value]
        is_good = bool(types) and all(isinstance(t, str) and t in _TYPES for t in types)
        return None if is_good else "one or several of the seven JSON types"
    if keyword in COUNTS:
        return None if _is_number(value, int) and value >= 0 else "a whole number from 0"
    if keyword in NUMBERS:
        is_good = _is_number(value, int, float) and (keyword != "multipleOf" or value > 0)
        return None if is_good else "a number" + " above 0" * (keyword == "multipleOf")
    if keyword in ("pattern", "format", "$ref"):
        return None if isinstance(value, str) else "a string"
    if keyword == "enum":
        return None if isinstance(value, list) and value else "a list of values"
    if keyword == "required":
        is_good = isinstance(value, list) and all(isinstance(name, str) for name in value)
        return None if is_good else "a list of names"
    if keyword in LISTS:
        return None if isinstance(value, list) and value else "a list of schemas"
    if keyword in MAPS:
        return None if isinstance(value, dict) else "an object of schemas"
    return None


def _is_number(value: Any, *types: type) -> bool:
    return isinstance(value, types) and not isinstance(value, bool)


def _escape(name: str) -> str:
    return name.replace("~", "~0").replace("/", "~1")


def _malformed(pointer: str, reason: str) -> SchemaError:
    return SchemaError(pointer, reason, is_malformed=True)
