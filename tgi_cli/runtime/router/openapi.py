"""The OpenAPI document, made from the table of routes and the structs of the wire.

Nothing is described twice: fields, ranges and defaults are the decoders' own, and each route's
statuses follow from what it is: who may call it, whether it has a body, whether it generates.
OpenAPI 3.1, whose schemas are JSON Schema 2020-12.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from typing import Any

import msgspec

from tgi_cli import __version__
from tgi_cli.runtime.router.route_table import ROUTES, Route, Scope
from tgi_cli.runtime.router.schemas.common import ErrorBody
from tgi_cli.runtime.router.schemas.openai import OpenAIErrorBody

Json = dict[str, Any]

_JSON = "application/json"
_TEXT = "text/plain"
_EVENTS = "text/event-stream"
_REFERENCE = "#/components/schemas/{name}"
_PARAMETER = re.compile(r"\{(\w+)(?::[^}]*)?\}")
_TEXT_SCHEMA: Json = {_TEXT: {"schema": {"type": "string"}}}
_KEY = "api_key"

_BODY_ERRORS = {
    400: "The body is no JSON, or nested too deeply",
    408: "The body took too long to arrive",
    413: "The body is larger than the payload limit",
    415: "The content type is not JSON",
}
_REFUSED = "The body has a wrong type, a missing field, or a value that is out of range"
_GENERATION_ERRORS = {
    424: "The engine failed while it worked on the request",
    429: "The model is overloaded",
}
_UNEXPECTED = "The server failed, or the generation ended before its time"
_NO_KEY = "The key is missing or wrong, where the server has keys"


def openapi_json(routes: Iterable[Route] = ROUTES) -> bytes:
    """Return the document of these routes, as JSON."""
    return msgspec.json.encode(openapi_document(routes))


def openapi_document(routes: Iterable[Route] = ROUTES) -> Json:
    """Return the document of these routes."""
    routes = list(routes)
    types = [ErrorBody, OpenAIErrorBody]
    for route in routes:
        for described in (route.body, route.reply, route.event, route.parts):
            types += _alternatives(described)
    types = list(dict.fromkeys(types))
    schemas, components = msgspec.json.schema_components(types, ref_template=_REFERENCE)
    describe = _Describer(dict(zip(types, schemas, strict=True)))
    names = Counter(route.handler.__name__ for route in routes)
    paths: Json = {}
    for route in routes:
        operation = describe.operation(route, is_only=names[route.handler.__name__] == 1)
        paths.setdefault(_PARAMETER.sub(r"{\1}", route.path), {})[route.method.lower()] = operation
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Text Generation Inference",
            "description": "TGI's and OpenAI's protocols, served by tgi. GET answers HEAD too. "
            "An error inside a stream is an event, under status 200.",
            "version": __version__,
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "tags": [{"name": tag} for tag in dict.fromkeys(route.tag for route in routes)],
        "paths": paths,
        "components": {
            "schemas": components,
            "securitySchemes": {_KEY: {"type": "http", "scheme": "bearer"}},
        },
    }


def _alternatives(described: Any) -> list[Any]:
    if described is None:
        return []
    return list(described) if isinstance(described, tuple) else [described]


class _Describer:
    """Describes routes by the schemas of their types."""

    def __init__(self, schemas: dict[Any, Json]) -> None:
        self._schemas = schemas

    def operation(self, route: Route, *, is_only: bool) -> Json:
        """`is_only` says that no other route's handler has the name of its."""
        words = [route.handler.__name__, *re.findall(r"\w+", "" if is_only else route.path)]
        operation: Json = {
            "tags": [route.tag],
            "summary": route.summary,
            "operationId": "_".join(words),
        }
        parameters = [
            {"name": name, "in": "path", "required": True, "schema": {"type": "string"}}
            for name in _PARAMETER.findall(route.path)
        ]
        if parameters:
            operation["parameters"] = parameters
        if route.body is not None:
            content = {_JSON: {"schema": self._schema(route.body)}}
            operation["requestBody"] = {"required": True, "content": content}
        operation["responses"] = {
            str(status): reply for status, reply in sorted(self._replies(route).items())
        }
        operation["x-scope"] = route.scope.value
        if route.scope is not Scope.OPEN:
            operation["security"] = [{_KEY: []}, {}]
        return operation

    def _schema(self, described: Any) -> Json:
        schemas = [self._schemas[each] for each in _alternatives(described)]
        return schemas[0] if len(schemas) == 1 else {"anyOf": schemas}

    def _replies(self, route: Route) -> dict[int, Json]:
        replies: dict[int, Json] = {route.status: {"description": "OK"}}
        content: Json = {}
        if route.reply is not None:
            content[route.media_type] = {"schema": self._schema(route.reply)}
        if route.event is not None:
            content[_EVENTS] = {"schema": self._schema(route.event)}
        if content:
            replies[route.status]["content"] = content
        error: Json = {_JSON: {"schema": self._error_schema(route)}}
        if route.body is not None:
            told = error | _TEXT_SCHEMA
            replies |= {s: {"description": d, "content": told} for s, d in _BODY_ERRORS.items()}
            replies[422] = {"description": _REFUSED, "content": told}
            replies[500] = {"description": _UNEXPECTED, "content": error}
        if route.generates:
            replies |= {
                s: {"description": d, "content": error} for s, d in _GENERATION_ERRORS.items()
            }
        if route.scope is not Scope.OPEN:
            replies[401] = {"description": _NO_KEY}
        for status, description in route.errors.items():
            replies[status] = {"description": description}
            if status == 503:  # probes that tell their state tell it then too
                told = {_JSON: {"schema": self._schema(route.reply or ErrorBody)}}
                replies[status]["content"] = told
        return replies

    def _error_schema(self, route: Route) -> Json:
        # --openai-strict turns the errors of OpenAI's routes into OpenAI's.
        is_openai = route.path.startswith("/v1/")
        return self._schema((ErrorBody, OpenAIErrorBody) if is_openai else ErrorBody)
