"""The headers of replies and streams, as bytes: spec/http-api.md sections 7.2 and 8."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from tests.builders.router import Client, script_for, serving
from tests.builders.tokenizers import END

Json = dict[str, Any]
Headers = list[tuple[str, str]]

TEXT = "日本 😀"
ONE = {"max_new_tokens": 3}
CHAT = {"messages": [{"role": "user", "content": TEXT}], "max_tokens": 3}
OF_A_REPLY = [
    "x-compute-type",
    "x-compute-characters",
    "x-compute-time",
    "x-total-time",
    "x-validation-time",
    "x-queue-time",
    "x-inference-time",
    "x-time-per-token",
    "x-prompt-tokens",
    "x-generated-tokens",
]
REPLIES = [
    ("/generate", {"inputs": TEXT, "parameters": ONE}),
    ("/", {"inputs": TEXT, "parameters": ONE}),
    ("/invocations", {"inputs": TEXT, "parameters": ONE}),
    ("/v1/completions", {"prompt": TEXT, "max_tokens": 3}),
    ("/v1/chat/completions", CHAT),
]
STREAMS = [
    ("/generate_stream", {"inputs": TEXT, "parameters": ONE}),
    ("/", {"inputs": TEXT, "parameters": ONE, "stream": True}),
    ("/v1/completions", {"prompt": TEXT, "max_tokens": 3, "stream": True}),
    ("/v1/chat/completions", {**CHAT, "stream": True}),
    ("/generate_stream", {"inputs": ""}),  # a refusal
]


async def exchange(client: Client, path: str, body: Json) -> tuple[int, Headers, bytes]:
    """Return status, headers as they were written, and the rest."""
    reader, writer = await asyncio.open_connection("127.0.0.1", int(client.url.rpartition(":")[2]))
    data = json.dumps(body).encode()
    head = f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
    head += f"Content-Length: {len(data)}\r\nConnection: close\r\n\r\n"
    writer.write(head.encode() + data)
    answer = await reader.read()
    writer.close()
    top, _, rest = answer.partition(b"\r\n\r\n")
    status_line, *lines = top.decode("latin-1").split("\r\n")
    headers = [(name, value) for name, _, value in (line.partition(": ") for line in lines)]
    return int(status_line.split()[1]), headers, rest


def own(headers: Headers) -> list[str]:
    return [name for name, _ in headers if name.startswith("x-")]


@pytest.mark.parametrize(("path", "body"), REPLIES)
async def test_a_generations_reply_has_its_headers(path, body):
    async with serving(compute_type="2-toaster") as client:
        status, written, _ = await exchange(client, path, body)

    headers = dict(written)
    is_completion = path == "/v1/completions"
    assert status == 200
    assert own(written) == [
        name for name in OF_A_REPLY if not (is_completion and name == "x-compute-time")
    ]
    assert headers["x-compute-type"] == "2-toaster"
    assert headers["x-generated-tokens"] == "3"
    num_characters = len(TEXT)  # code points
    if "messages" in body:
        num_characters += len(f"<|user|>{END}<|assistant|>")
    assert headers["x-compute-characters"] == str(num_characters)
    for name in OF_A_REPLY[3:]:
        assert headers[name].isdecimal(), name
    if not is_completion:
        whole, _, fraction = headers["x-compute-time"].partition(".")
        assert whole.isdecimal()
        assert fraction.isdecimal()
        assert int(float(headers["x-compute-time"]) * 1000) == int(headers["x-total-time"])


async def test_times_are_whole_milliseconds_and_fit_one_another():
    async with serving(script_for("abc", step_s=0.011)) as client:
        _, headers, _ = await client.post("/generate", {"inputs": "x", "parameters": ONE})

    ms = {name: int(headers[f"x-{name}"]) for name in ("total-time", "inference-time")}
    parts = [int(headers[f"x-{name}-time"]) for name in ("validation", "queue", "inference")]
    assert ms["inference-time"] >= 33
    assert int(headers["x-time-per-token"]) == ms["inference-time"] // 3
    assert sum(parts) <= ms["total-time"] <= sum(parts) + len(parts)


async def test_headers_of_several_prompts_are_sums():
    async with serving() as client:
        body = {"prompt": ["x", "日本", "xyz"], "max_tokens": 2}
        _, headers, reply = await client.post("/v1/completions", body)

    assert headers["x-compute-characters"] == "6"
    assert headers["x-prompt-tokens"] == str(reply["usage"]["prompt_tokens"])
    assert headers["x-generated-tokens"] == "6"


@pytest.mark.parametrize(("path", "body"), STREAMS)
async def test_a_stream_has_few_headers(path, body):
    async with serving(compute_type="2-toaster") as client:
        status, written, _ = await exchange(client, path, body)

    headers = dict(written)
    assert status == 200
    assert own(written) == ["x-accel-buffering", "x-compute-type", "x-compute-characters"]
    assert headers["content-type"] == "text/event-stream"
    assert headers["cache-control"] == "no-cache"
    assert headers["x-accel-buffering"] == "no"
    assert headers["x-compute-type"] == "2-toaster"


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/generate", {"inputs": ""}),
        ("/generate", {"inputs": 3}),
        ("/v1/chat/completions", {**CHAT, "temperature": -1}),
        ("/tokenize", {"inputs": "x"}),
        ("/chat_tokenize", CHAT),
        ("/vertex", {"instances": [{"inputs": "x"}]}),
        (
            "/v2/models/m/versions/1/infer",
            {
                "inputs": [{"name": "x", "shape": [1, 1], "datatype": "BYTES", "data": [120]}],
                "outputs": [{"name": "y"}],
                "parameters": ONE,
            },
        ),
    ],
)
async def test_nothing_else_has_them(path, body):
    async with serving() as client:
        status, written, _ = await exchange(client, path, body)

    assert status in (200, 422)
    assert own(written) == []


async def test_header_names_are_in_lower_case():
    paths = [*REPLIES, *STREAMS, ("/health", {}), ("/nothing", {}), ("/generate", {"inputs": 3})]
    async with serving() as client:
        written = [(await exchange(client, path, body))[1] for path, body in paths]

    names = {name for headers in written for name, _ in headers}
    assert {"content-type", "content-length", "transfer-encoding", "date", "allow"} <= names
    assert {name for name in names if name != name.lower()} == set()
