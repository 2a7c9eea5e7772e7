"""Guided output of the demo model through the whole server: it validates, whatever the company."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Iterator
from typing import Any

import aiohttp
import jsonschema
import pytest

from tests.builders.served import served

PERSON = {
    "$defs": {"pet": {"properties": {"kind": {"enum": ["cat", "dog"]}}, "required": ["kind"]}},
    "type": "object",
    "properties": {
        "name": {"type": "string", "minLength": 2, "maxLength": 20},
        "age": {"type": "integer", "minimum": 0, "maximum": 120},
        "pets": {"type": "array", "items": {"$ref": "#/$defs/pet"}, "maxItems": 3},
        "email": {
            "anyOf": [{"type": "string", "format": "email", "maxLength": 30}, {"type": "null"}]
        },
    },
    "required": ["name", "age", "pets", "email"],
}
PROMPT = "Describe Ada, aged 36, as JSON:\n"


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with served("--model-id", "demo") as server:
        yield server.wait_ready()


def guided(grammar: dict[str, Any], **parameters: Any) -> dict[str, Any]:
    settings = {"max_new_tokens": 160, "details": True, "grammar": grammar, **parameters}
    return {"inputs": PROMPT, "parameters": settings}


async def post(session: aiohttp.ClientSession, url: str, body: dict[str, Any]) -> Any:
    async with session.post(f"{url}/generate", json=body) as response:
        assert response.status == 200, await response.text()
        return await response.json()


async def stream(session: aiohttp.ClientSession, url: str, body: dict[str, Any]) -> Any:
    async with session.post(f"{url}/generate_stream", json=body) as response:
        lines = [line for line in (await response.text()).split("\n") if line.startswith("data:")]
    return [json.loads(line.removeprefix("data:")) for line in lines]


@pytest.mark.parametrize("sampling", [{}, {"do_sample": True, "temperature": 0.9, "seed": 3}])
async def test_json_output_validates_and_is_the_same_alone_streamed_and_in_company(
    url: str, sampling: dict[str, Any]
) -> None:
    body = guided({"type": "json", "value": PERSON}, **sampling)
    other = {"inputs": "Once upon a time", "parameters": {"max_new_tokens": 60}}

    async with aiohttp.ClientSession() as session:
        alone = await post(session, url, body)
        together = await asyncio.gather(
            stream(session, url, body),
            post(session, url, other),
            post(session, url, guided({"type": "regex", "value": r"[a-z ]{30,60}"})),
            post(session, url, other),
        )

    assert alone["details"]["finish_reason"] == "eos_token"
    jsonschema.validate(json.loads(alone["generated_text"]), PERSON)
    assert together[0][-1]["generated_text"] == alone["generated_text"]
    assert together[1]["generated_text"] == together[3]["generated_text"]
    assert re.fullmatch(r"[a-z ]{30,60}", together[2]["generated_text"])


@pytest.mark.parametrize(
    ("grammar", "pattern"),
    [
        ({"type": "regex", "value": r"\d{4}-\d\d-\d\d"}, r"\d{4}-\d\d-\d\d"),
        ({"type": "choice", "value": ["positive", "negative"]}, "positive|negative"),
        (
            {"type": "lark", "value": 'start: item{3}\nitem: /[a-z]{2,6}/ "é"'},
            "([a-z]{2,6}é){3}",
        ),
    ],
)
async def test_other_grammars_match_the_whole_output(
    url: str, grammar: dict[str, Any], pattern: str
) -> None:
    async with aiohttp.ClientSession() as session:
        reply = await post(session, url, guided(grammar))

    assert reply["details"]["finish_reason"] == "eos_token"
    assert re.fullmatch(pattern, reply["generated_text"])


async def test_output_that_is_cut_says_so(url: str) -> None:
    grammar = {"type": "json", "value": PERSON}

    async with aiohttp.ClientSession() as session:
        short = await post(session, url, guided(grammar, max_new_tokens=5))
        stopped = await post(session, url, guided(grammar, stop=['"age"']))

    assert short["details"]["finish_reason"] == "length"
    assert stopped["details"]["finish_reason"] == "stop_sequence"
    assert stopped["generated_text"].endswith('"age"')


async def test_grammar_that_explodes_is_refused_and_the_server_goes_on(url: str) -> None:
    explosive = [
        {"type": "regex", "value": "(.{1,100}){1,100}x"},
        {"type": "lark", "value": "start: start start | /./"},
        {"type": "json", "value": {"properties": {"a": {"allOf": [
            {"anyOf": [{"properties": {f"p{i}{j}": {"type": "integer"}}, "required": [f"p{i}{j}"]}
                       for j in range(4)]} for i in range(7)]}}}},
    ]  # fmt: skip

    async with aiohttp.ClientSession() as session:
        for grammar in explosive:
            async with session.post(f"{url}/generate", json=guided(grammar)) as response:
                assert response.status == 422
                assert (await response.json())["error_type"] == "validation"
        after = await post(session, url, guided({"type": "regex", "value": "ab"}))

    assert after["generated_text"] == "ab"
