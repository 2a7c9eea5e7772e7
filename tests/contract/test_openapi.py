"""The OpenAPI document describes every route, and holds all that TGI's own document promises."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.builders.router import serving
from tgi_cli.runtime.router.openapi import openapi_document
from tgi_cli.runtime.router.route_table import ROUTES

OURS = openapi_document()
TGIS = json.loads((Path(__file__).parent / "data" / "tgi-openapi.json").read_text())
OPERATIONS = [(path, method) for path, methods in TGIS["paths"].items() for method in methods]

DIFFERENT_STATUSES = {
    ("/tokenize", "404"): "a tokenizer's failure is a 422, in TGI too",
    ("/chat_tokenize", "404"): "template and tokenizer errors are 422s, in TGI too",
    ("/v1/models", "404"): "there is always a model",
}
DIFFERENT_FIELDS = {
    "GET /v1/models 200": "TGI's document shows one entry where its server sends the list",
    "POST /invocations 200": "TGI's document shows one object where its server sends a list",
}
NEVER_SENT = {".choices[].message.tool_call_id", ".choices[].delta.tool_call_id"}


def fields_of(document, schema, prefix="", seen=()):
    """Return the dotted names of all fields below `schema`, and "*" below what may be anything."""
    if "$ref" in schema:
        name = schema["$ref"].rpartition("/")[2]
        if name in seen:
            return set()
        return fields_of(document, document["components"]["schemas"][name], prefix, (*seen, name))
    inner = [each for key in ("anyOf", "oneOf", "allOf") for each in schema.get(key, ())]
    found = set().union(*(fields_of(document, each, prefix, seen) for each in inner))
    if "items" in schema:
        found |= fields_of(document, schema["items"], f"{prefix}[]", seen)
    for name, each in schema.get("properties", {}).items():
        place = f"{prefix}.{name}"
        found |= {place} | fields_of(document, each, place, seen)
    has_shape = inner or "items" in schema or "properties" in schema
    if not has_shape and schema.get("type", "object") == "object":
        found.add(f"{prefix}.*")
    return found


def is_covered(place, fields):
    """Whether the field is there, or lies below one that takes anything."""
    cuts = [i for i, character in enumerate(place) if character in ".["] + [len(place)]
    return place in fields or any(f"{place[:cut]}.*" in fields for cut in cuts)


def schemas(document, operation, part):
    """Return the schemas of the request or of a status, whatever their media types."""
    holder = operation["requestBody"] if part == "request" else operation["responses"][part]
    return [content["schema"] for content in (holder.get("content") or {}).values()]


@pytest.mark.parametrize(("path", "method"), OPERATIONS)
def test_every_operation_of_tgi_is_there_with_its_statuses(path, method):
    theirs, ours = TGIS["paths"][path][method], OURS["paths"][path][method]

    missing = {status for status in theirs["responses"] if status not in ours["responses"]}

    assert {status for status in missing if (path, status) not in DIFFERENT_STATUSES} == set()
    assert ("requestBody" in theirs) == ("requestBody" in ours)


@pytest.mark.parametrize(("path", "method"), OPERATIONS)
def test_every_field_of_tgi_is_there(path, method):
    theirs, ours = TGIS["paths"][path][method], OURS["paths"][path][method]
    parts = [status for status in theirs["responses"] if status in ours["responses"]]
    parts += ["request"] if "requestBody" in theirs else []

    for part in parts:
        if f"{method.upper()} {path} {part}" in DIFFERENT_FIELDS:
            continue
        wanted = set().union(*(fields_of(TGIS, s) for s in schemas(TGIS, theirs, part)))
        found = set().union(*(fields_of(OURS, s) for s in schemas(OURS, ours, part)))
        missing = {
            each
            for each in wanted - NEVER_SENT
            if not each.endswith("*") and not is_covered(each, found)
        }
        assert missing == set(), part


def test_each_route_of_the_table_is_described_once():
    described = {
        (method.upper(), path) for path, methods in OURS["paths"].items() for method in methods
    }
    names = [each["operationId"] for methods in OURS["paths"].values() for each in methods.values()]

    assert described == {(r.method, r.path.replace(":.+", "")) for r in ROUTES}
    assert len(set(names)) == len(names)


def test_every_reference_leads_somewhere():
    text = json.dumps(OURS)

    targets = {part.partition('"')[0] for part in text.split("#/components/schemas/")[1:]}

    assert targets <= set(OURS["components"]["schemas"])


async def test_the_server_shows_its_document_and_a_page_for_it():
    async with serving(vertex_predict_route="/predict") as client:
        _, _, text = await client.get("/api-doc/openapi.json")
        status, headers, page = await client.get("/docs")
        redirect = await client.get("/docs/", allow_redirects=False)
        followed = await client.get("/docs/")

    assert "/predict" in json.loads(text)["paths"]
    assert (status, headers["content-type"]) == (200, "text/html; charset=utf-8")
    assert "http://" not in page
    assert "https://" not in page
    assert redirect[0] == 308
    assert followed[2] == page


@pytest.mark.parametrize("name", ["main", "router"])
def test_print_schema_needs_no_model_and_no_torch(name):
    program = (
        "import atexit, sys; from tgi_cli import app; sys.argv = ['x', 'print-schema'];"
        f"atexit.register(lambda: print(*sys.modules, file=sys.stderr)); app.{name}()"
    )

    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )

    assert json.loads(done.stdout) == OURS
    assert not {"torch", "transformers"} & set(done.stderr.split())
