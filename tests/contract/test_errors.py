"""Every error's status, type and text, as a reply and in a stream: spec/http-api.md section 5."""

from __future__ import annotations

import pytest

from tests.builders.router import answering, ids_of, script_for, serving
from tgi_cli.runtime.ipc.fake_engine import FakeScript

USER = {"role": "user", "content": "x"}
TOOL = {"type": "function", "function": {"name": "f", "parameters": {"properties": {}}}}
CHAT = "/v1/chat/completions"
INFER = "/v2/models/m/versions/1/infer"
NATIVE_STREAMS = [
    ("/generate_stream", {"inputs": "x"}),
    ("/", {"inputs": "x", "stream": True}),
    ("/invocations", {"inputs": "x", "stream": True}),
]
OPENAI_STREAMS = [
    ("/v1/completions", {"prompt": "x", "stream": True}),
    (CHAT, {"messages": [USER], "stream": True}),
    ("/invocations", {"messages": [USER], "stream": True}),
]
# One plain call of each route that generates.
PLAIN = [
    ("/generate", {"inputs": "x"}),
    ("/", {"inputs": "x"}),
    ("/v1/completions", {"prompt": "x"}),
    (CHAT, {"messages": [USER]}),
    ("/invocations", {"prompt": "x"}),
    ("/vertex", {"instances": [{"inputs": "x"}]}),
    (
        INFER,
        {
            "id": "1",
            "inputs": [{"name": "i", "shape": [1, 1], "datatype": "BYTES", "data": [120]}],
            "outputs": [{"name": "o"}],
        },
    ),
]
OVERLOADED = {"error": "Model is overloaded", "error_type": "overloaded"}
FAILED = {
    "error": "Request failed during generation: Server error: as scripted",
    "error_type": "generation",
}
INCOMPLETE = {"error": "Incomplete generation", "error_type": "incomplete_generation"}


def paths(calls):
    return pytest.mark.parametrize(("path", "body"), calls, ids=[path for path, _ in calls])


def refuse_everybody(client):
    permits = client.router._service._permits
    while permits.num_taken < permits._limit:
        permits.take()


def break_generation(monkeypatch):
    def fail(*_: object) -> None:
        raise RuntimeError("unforeseen: a secret")

    monkeypatch.setattr("tgi_cli.runtime.router.service.Generation._take", fail)


@paths(PLAIN)
async def test_a_full_server_is_a_429(path, body):
    async with serving(limits={"max_concurrent_requests": 3}) as client:
        refuse_everybody(client)
        status, _, reply = await client.post(path, body)

    assert (status, reply) == (429, OVERLOADED)


@paths(PLAIN)
async def test_an_engine_failure_is_a_424(path, body):
    async with serving(FakeScript(fails=True)) as client:
        status, _, reply = await client.post(path, body)

    assert (status, reply) == (424, FAILED)


@paths(PLAIN)
async def test_what_nobody_foresaw_is_a_500_that_tells_nothing(path, body, monkeypatch):
    break_generation(monkeypatch)
    async with serving() as client:
        status, _, reply = await client.post(path, body)

    assert (status, reply) == (500, INCOMPLETE)


@pytest.mark.parametrize(
    ("path", "body", "error", "kind"),
    [
        (
            "/generate",
            {"inputs": ""},
            "Input validation error: `inputs` cannot be empty",
            "validation",
        ),
        (
            "/v1/completions",
            {"prompt": "x", "suffix": "y"},
            "Suffix is not supported and can be achieved by preprocessing the prompt.",
            "suffix not supported",
        ),
        (
            "/v1/completions",
            {"prompt": ["x"] * 5},
            "Number of prompts exceeds the maximum allowed batch size of 4",
            "batch size exceeded",
        ),
        (
            CHAT,
            {"messages": [USER], "tools": [TOOL], "tool_choice": "g"},
            "Tool error: Tool with name g not found",
            "tool_error",
        ),
        (
            CHAT,
            {"messages": [USER], "tools": [], "response_format": {"type": "regex", "value": "a"}},
            "Tool error: Grammar and tools are mutually exclusive",
            "tool_error",
        ),
    ],
)
@pytest.mark.parametrize("stream", [False, True])
async def test_refusals_before_a_generation_keep_their_status_on_a_stream(
    path, body, error, kind, stream
):
    async with serving() as client:
        status, headers, reply = await client.post(path, {**body, "stream": stream})

    assert (status, reply) == (422, {"error": error, "error_type": kind})
    assert headers["content-type"] == "application/json"


@pytest.mark.parametrize(
    ("template", "error", "kind"),
    [
        ("", "Template error: template not found", "template_error"),
        (
            "{{ raise_exception('no roles here') }}",
            "Template error: syntax error: no roles here (in <string>:1)",
            "template_error",
        ),
        ("{{ tone.word }}", "Missing template vatiable: tone", "missing_template_variable"),
    ],
)
@pytest.mark.parametrize("stream", [False, True])
async def test_template_errors_keep_their_status_on_a_stream(template, error, kind, stream):
    async with serving(template=template) as client:
        status, _, reply = await client.post(CHAT, {"messages": [USER], "stream": stream})

    assert (status, reply) == (422, {"error": error, "error_type": kind})


@paths(NATIVE_STREAMS)
async def test_a_native_stream_that_fails_is_a_200_with_one_error_and_no_mark(path, body):
    refused = {**body, "parameters": {"top_p": 1.5}}
    async with serving(FakeScript(fails=True), limits={"max_concurrent_requests": 3}) as client:
        invalid = await client.stream(path, refused)
        failed = await client.stream(path, body)
        refuse_everybody(client)
        overloaded = await client.stream(path, body)

    text = "Input validation error: `top_p` must be > 0.0 and < 1.0"
    assert invalid == [{"error": text, "error_type": "validation"}]
    assert failed == [FAILED]
    assert overloaded == [OVERLOADED]


@paths(OPENAI_STREAMS)
async def test_an_openai_stream_that_fails_is_a_200_with_the_true_code_and_the_mark(path, body):
    async with serving(FakeScript(fails=True), limits={"max_concurrent_requests": 3}) as client:
        found = [await client.stream(path, {**body, "top_p": 1.5}), await client.stream(path, body)]
        refuse_everybody(client)
        found.append(await client.stream(path, body))

    assert [(event["error"]["http_status_code"], mark) for event, mark in found] == [
        (422, "[DONE]"), (424, "[DONE]"), (429, "[DONE]"),
    ]  # fmt: skip
    assert [event["error"]["message"] for event, _ in found] == [
        "Input validation error: `top_p` must be > 0.0 and < 1.0",
        FAILED["error"],
        OVERLOADED["error"],
    ]
    assert [event["error_type"] for event, _ in found] == ["validation", "generation", "overloaded"]


@paths([*NATIVE_STREAMS, *OPENAI_STREAMS])
async def test_what_nobody_foresaw_ends_a_stream_with_one_error(path, body, monkeypatch):
    break_generation(monkeypatch)
    async with serving() as client:
        event, *rest = await client.stream(path, body)

    is_native = "inputs" in body
    assert rest == ([] if is_native else ["[DONE]"])
    text = event["error"] if is_native else event["error"]["message"]
    assert text == "Incomplete generation stream"
    assert event["error_type"] == "incomplete_generation_stream"


@paths([*NATIVE_STREAMS, *OPENAI_STREAMS])
async def test_a_failure_in_mid_stream_takes_nothing_back(path, body):
    script = script_for("abc", step_s=0.002)
    async with (
        serving(script, limits={"max_total_tokens": 6000}) as client,
        client.session.post(client.url + path, json=body) as response,
    ):
        begun = await response.content.readuntil(b"\n\n")
        client.engine.close()
        rest = (await response.content.read()).decode()

    *tokens, last = [frame for frame in rest.split("\n\n") if frame and frame != "data: [DONE]"]
    assert begun.startswith(b"data: {")
    assert '"error_type":"generation"' in last
    assert not any("error" in token for token in tokens)
    assert ("data: [DONE]" in rest) == ("inputs" not in body)


async def test_no_reply_of_an_error_has_the_headers_of_a_generation():
    async with serving() as client:
        _, headers, _ = await client.post("/generate", {"inputs": ""})

    assert not any(name.lower().startswith("x-") for name in headers)


@pytest.mark.parametrize("text", ["{}", '{"function": {"_name": "f"'])
async def test_a_call_that_cannot_be_read_is_no_error(text):
    body = {"messages": [USER], "tools": [TOOL], "tool_choice": "required", "max_tokens": 90}
    limits = {"max_input_tokens": 900, "max_total_tokens": 1000}
    async with serving(answering(text), limits=limits) as client:
        status, _, reply = await client.post(CHAT, body)

    assert status == 200
    assert reply["choices"][0]["message"]["content"] == text
    assert reply["usage"]["completion_tokens"] == len(ids_of(text)) + 1
