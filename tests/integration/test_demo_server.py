"""The demo model behind the whole server: what the README shows, byte for byte the same twice."""

from __future__ import annotations

import asyncio
import json
import urllib.request
from collections.abc import Iterator
from typing import Any

import aiohttp
import openai
import pytest

from tests.builders.served import served

PROMPT = "The capital of France is"


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with served("--model-id", "demo") as server:
        yield server.wait_ready()


def post(url: str, body: dict[str, Any]) -> Any:
    request = urllib.request.Request(
        url, json.dumps(body).encode(), {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=60) as response:
        return json.load(response)


async def stream_events(
    session: aiohttp.ClientSession, url: str, body: dict[str, Any]
) -> list[dict[str, Any]]:
    async with session.post(f"{url}/generate_stream", json=body) as response:
        text = await response.text()
    lines = [line for line in text.split("\n") if line.startswith("data:")]
    return [json.loads(line.removeprefix("data:")) for line in lines]


def test_the_readmes_curl_request_is_answered_with_sense(url: str) -> None:
    body = {"inputs": PROMPT, "parameters": {"max_new_tokens": 10}}

    assert "Paris" in post(f"{url}/generate", body)["generated_text"]


@pytest.mark.parametrize(
    "parameters",
    [
        {"max_new_tokens": 19},
        {"max_new_tokens": 19, "do_sample": True, "temperature": 0.9, "seed": 7},
    ],
)
async def test_a_request_gives_the_same_text_alone_streamed_and_in_company(
    url: str, parameters: dict[str, Any]
) -> None:
    body = {"inputs": PROMPT, "parameters": parameters}
    alone = (await asyncio.to_thread(post, f"{url}/generate", body))["generated_text"]

    async with aiohttp.ClientSession() as session:
        others = [
            {"inputs": f"{n} birds sat on a {'very ' * n}old tree and", "parameters": parameters}
            for n in range(1, 8)
        ]
        streams = await asyncio.gather(
            *(stream_events(session, url, each) for each in [body, *others])
        )

    assert streams[0][-1]["generated_text"] == alone
    assert "".join(event["token"]["text"] for event in streams[0]) == alone


def test_the_readmes_openai_snippet_streams_what_it_answers_at_once(url: str) -> None:
    client = openai.OpenAI(base_url=f"{url}/v1", api_key="-")
    question: Any = {
        "model": "tgi",
        "messages": [{"role": "user", "content": "What is deep learning?"}],
        "max_tokens": 24,
        "temperature": 0,
    }

    with client:
        whole = client.chat.completions.create(**question).choices[0].message.content
        with client.chat.completions.create(**question, stream=True) as stream:
            pieces = [chunk.choices[0].delta.content or "" for chunk in stream if chunk.choices]

    assert whole
    assert "".join(pieces) == whole
