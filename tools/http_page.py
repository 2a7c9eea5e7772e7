"""docs/reference/http.md: the OpenAPI document as a page to read."""

from __future__ import annotations

import json
from typing import Any

from tgi_cli.runtime.router.openapi import openapi_document

NOTE = "<!-- Made by `make docs` from tgi_cli/runtime/router; edit that. -->"

Json = dict[str, Any]

_KEYS = {"open": "", "inference": ", *key*", "chat_tokenize": ", *key* if it is protected"}


def http_page() -> str:
    document = openapi_document()
    lines = [
        "# HTTP",
        "",
        NOTE,
        "",
        "The same as `/api-doc/openapi.json`, which `tgi print-schema` prints and `/docs` shows on",
        "a running server. GET answers HEAD too. Where the server has keys, routes marked *key*",
        "want `Authorization: Bearer KEY` ([security](../guides/security.md)). An error inside a",
        "stream is an event, under status 200.",
    ]
    for tag in document["tags"]:
        lines += ["", f"## {tag['name']}", ""]
        lines += ["| Route | | Body | Reply | Statuses |", "| --- | --- | --- | --- | --- |"]
        for path, operations in document["paths"].items():
            for method, operation in operations.items():
                if tag["name"] in operation["tags"]:
                    lines.append(_route_row(method, path, operation))
    lines += ["", "# Structs", "", "Unknown keys are ignored; `null` is the same as absent."]
    for name, schema in document["components"]["schemas"].items():
        lines += _struct(name, schema)
    return "\n".join(lines) + "\n"


def _route_row(method: str, path: str, operation: Json) -> str:
    key = _KEYS[operation["x-scope"]]
    content = operation.get("requestBody", {}).get("content", {})
    body = " or ".join(_type(each["schema"]) for each in content.values())
    success = min(operation["responses"])
    replies = operation["responses"][success].get("content", {})
    reply = "; ".join(
        f"`{media}`: {_type(each['schema'])}"
        if media != "application/json"
        else _type(each["schema"])
        for media, each in replies.items()
    )
    statuses = ", ".join(operation["responses"])
    summary = operation["summary"].replace("|", "\\|")
    return f"| `{method.upper()} {path}`{key} | {summary} | {body} | {reply} | {statuses} |"


def _struct(name: str, schema: Json) -> list[str]:
    lines = ["", f"## {name}", ""]
    if "description" in schema:
        lines += [schema["description"], ""]
    if "properties" not in schema:
        return [*lines, f"One of: {_type(schema)}"]
    required = schema.get("required", ())
    lines += ["| Field | Type | Default |", "| --- | --- | --- |"]
    for field, each in schema["properties"].items():
        default = "required" if field in required else _default(each)
        lines.append(f"| `{field}` | {_type(each)} | {default} |")
    return lines


def _default(schema: Json) -> str:
    default = schema.get("default")
    return "" if default is None else f"`{json.dumps(default)}`"


def _type(schema: Json) -> str:
    """Return the words for a type; null, which is the same as absent, is left out."""
    if "$ref" in schema:
        name = schema["$ref"].rpartition("/")[2]
        return f"[{name}](#{name.lower()})"
    if "anyOf" in schema:
        kinds = [each for each in schema["anyOf"] if each.get("type") != "null"]
        return " or ".join(_type(each) for each in kinds)
    if "enum" in schema:
        return " or ".join(f"`{json.dumps(each)}`" for each in schema["enum"])
    if schema.get("type") == "array":
        return f"list of {_type(schema.get('items', {}))}"
    if isinstance(schema.get("additionalProperties"), dict):
        return f"object of {_type(schema['additionalProperties'])}"
    return str(schema.get("type", "anything")) + _range(schema)


def _range(schema: Json) -> str:
    least, most = schema.get("minimum"), schema.get("maximum")
    if least is None and most is None:
        return ""
    if most is None:
        return f" from {least}"
    return f" to {most}" if least is None else f" {least} to {most}"
