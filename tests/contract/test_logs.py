"""What requests leave in the log, and what never gets there: spec/metrics.md section 5."""

from __future__ import annotations

import io
import json
import logging
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from tests.builders.router import ids_of, script_for, serving
from tgi_cli.runtime.logs import JsonFormatter, TextFormatter

MARKER = "Zq7secret"
DURATION = re.compile(r"\d+(\.\d+)?(s|ms|µs|ns)")


@contextmanager
def logged(level: int = logging.INFO, *, as_text: bool = False) -> Iterator[list[Any]]:
    """Yield a list that is filled with the block's lines when it ends."""
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(TextFormatter(None, colour=False) if as_text else JsonFormatter(None))
    logger = logging.getLogger("tgi_cli")
    level_before = logger.level
    logger.addHandler(handler)
    logger.setLevel(level)
    lines: list[Any] = []
    try:
        yield lines
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level_before)
        written = stream.getvalue().splitlines()
        lines += written if as_text else map(json.loads, written)


async def test_a_success_says_what_was_asked_and_how_long_it_took():
    with logged() as lines:
        async with serving(script_for("abc")) as client:
            parameters = {"max_new_tokens": 4, "do_sample": True, "seed": 7, "stop": ["zz"]}
            headers = {"traceparent": f"00-{'a' * 32}-{'b' * 16}-01"}
            body = {"inputs": "x", "parameters": parameters}
            await client.post("/generate", body, headers=headers)

    [line] = [line for line in lines if line["message"] == "Success"]
    outer, inner = line["spans"]
    assert line["level"] == "INFO"
    assert outer == {
        "name": "HTTP request",
        "http.method": "POST",
        "http.route": "/generate",
        "trace_id": "a" * 32,
    }
    assert line["span"] == inner
    assert inner["name"] == "generate"
    assert inner["seed"] == 7
    for name in ("total_time", "validation_time", "queue_time", "inference_time",
                 "time_per_token"):  # fmt: skip
        assert DURATION.fullmatch(inner[name])
        assert inner[f"{name}_s"] >= 0
    parts = ("validation_time_s", "queue_time_s", "inference_time_s")
    assert sum(inner[name] for name in parts) == pytest.approx(inner["total_time_s"])
    assert inner["time_per_token_s"] == pytest.approx(inner["inference_time_s"] / 4, abs=1e-8)
    shown = inner["parameters"]
    assert shown.startswith("GenerateParameters { ")
    assert "max_new_tokens: 4" in shown
    assert "do_sample: true" in shown
    assert "stop: (1 items)" in shown


async def test_a_success_is_one_line_of_text_in_its_spans():
    with logged(as_text=True) as lines:
        async with serving(script_for("abc")) as client:
            await client.stream("/generate_stream", {"inputs": "x"})

    [line] = [line for line in lines if line.endswith("Success")]
    assert re.match(r"\S+Z  INFO HTTP request\{http\.method=\"POST\" ", line)
    assert ":generate_stream{parameters=" in line
    assert re.search(r' total_time="\d\S*s" validation_time="\S+s" ', line)


@pytest.mark.parametrize(
    ("path", "body", "span", "count"),
    [
        ("/", {"inputs": "x"}, "compat_generate", 1),
        ("/v1/completions", {"prompt": ["x", "y", "z"], "max_tokens": 2}, "completions", 3),
        (
            "/v1/chat/completions",
            {"messages": [{"role": "user", "content": "x"}], "max_tokens": 2},
            "chat_completions",
            1,
        ),
        (
            "/generate",
            {"inputs": "x", "parameters": {"best_of": 2, "do_sample": True}},
            "generate",
            1,
        ),
    ],
)
async def test_there_is_one_success_for_each_generation(
    path: str, body: dict[str, Any], span: str, count: int
):
    with logged() as lines:
        async with serving(script_for("abc")) as client:
            await client.post(path, body)

    successes = [line for line in lines if line["message"] == "Success"]
    assert [line["span"]["name"] for line in successes] == [span] * count


async def test_a_refusal_is_an_error_with_the_text_that_the_client_got():
    script = script_for("abc", fail_prompts_of=len(ids_of("bad")))
    refused = {"inputs": "x", "parameters": {"max_new_tokens": 0}}
    with logged() as lines:
        async with serving(script) as client:
            _, _, plain = await client.post("/generate", refused)
            [event] = await client.stream("/generate_stream", refused)
            _, _, failed = await client.post("/generate", {"inputs": "bad"})
            await client.get("/v1/models/unknown")

    errors = [(line["message"], line["error_type"]) for line in lines if line["level"] == "ERROR"]
    assert errors == [(reply["error"], reply["error_type"]) for reply in (plain, event, failed)]
    assert [line["span"]["name"] for line in lines if line["level"] == "ERROR"] == [
        "generate", "generate_stream", "generate",
    ]  # fmt: skip


async def test_probes_of_an_unhealthy_server_do_not_fill_the_log():
    with logged() as lines:
        async with serving(script_for("abc")) as client:
            client.engine.close()
            await client.engine.closed.wait()
            statuses = [(await client.get("/health"))[0] for _ in range(3)]

    assert statuses == [503] * 3
    assert not any(line["message"] == "unhealthy" for line in lines)


def bodies_with_text_everywhere() -> list[tuple[str, dict[str, Any]]]:
    """Return calls that put the marker into every field in which users send text."""
    schema = {"type": "object", "properties": {MARKER: {"const": MARKER}}}
    tool = {"name": MARKER, "description": MARKER, "parameters": schema}
    message = {"role": "user", "content": MARKER, "name": MARKER}
    texts: list[dict[str, Any]] = [
        {},
        {"stop": [MARKER]},
        {"grammar": {"type": "json", "value": schema}},
        {"grammar": {"type": "regex", "value": f"({MARKER}"}},
        {"grammar": {"type": MARKER, "value": MARKER}},
        {"adapter_id": MARKER},
        {"logit_bias": {MARKER: 1.0}},
        {"stop": [MARKER] * 9},
        {"max_new_tokens": MARKER},
    ]
    bodies: list[tuple[str, dict[str, Any]]] = []
    for parameters in texts:
        body = {"inputs": MARKER, "parameters": {"max_new_tokens": 3} | parameters}
        bodies += [("/generate", body), ("/generate_stream", body), ("/tokenize", body)]
    extras: list[dict[str, Any]] = [
        {},
        {"model": MARKER, "user": MARKER, "stop": MARKER},
        {"tools": [{"type": "function", "function": tool}]},
        {"tools": [{"type": "function", "function": tool}], "tool_choice": MARKER + "2"},
        {"tools": [{"type": "function", "function": tool}], "tool_prompt": MARKER},
        {"tools": [], "tool_choice": MARKER},
        {"response_format": {"type": "json_object", "value": schema}},
        {"response_format": {"type": "json_schema", "json_schema": {"name": MARKER, "schema": 7}}},
        {"response_format": {"type": MARKER}},
        {"messages": [{"role": MARKER, "content": MARKER}]},
        {"messages": [{"role": "user", "content": [{"type": MARKER, "text": MARKER}]}]},
        {"messages": [{"role": "tool", "content": MARKER, "tool_call_id": MARKER}]},
    ]
    for extra in extras:
        chat = {"messages": [message], "max_tokens": 3} | extra
        bodies += [
            ("/v1/chat/completions", chat),
            ("/v1/chat/completions", chat | {"stream": True}),
        ]
        bodies.append(("/chat_tokenize", chat))
    for extra in ({}, {"suffix": MARKER}, {"stop": [MARKER]}, {"echo": True}, {"logprobs": 1}):
        bodies.append(("/v1/completions", {"prompt": [MARKER], "max_tokens": 3} | extra))
    bodies += [
        ("/invocations", {"inputs": MARKER}),
        ("/vertex", {"instances": [{"inputs": MARKER}, {"messages": [message]}]}),
        (f"/{MARKER}", {}),
    ]
    return bodies


@pytest.mark.parametrize("as_text", [True, False])
async def test_no_text_of_a_user_is_in_the_log_above_debug(as_text: bool):
    with logged(as_text=as_text) as lines:
        async with serving(script_for(MARKER)) as client:
            statuses = [
                (await client.post(f"{path}?q={MARKER}", body, headers={"user-agent": MARKER}))[0]
                for path, body in bodies_with_text_everywhere()
            ]

    assert statuses.count(200) > 10
    assert all(status < 500 for status in statuses)
    assert len(lines) > 20
    assert [line for line in map(str, lines) if MARKER in line] == []


async def test_prompts_and_outputs_are_logged_at_debug_cut_to_a_thousand_characters():
    long = "y" * 1500
    limits = {"max_input_tokens": 3000, "max_total_tokens": 6000}
    body = {"inputs": long, "parameters": {"max_new_tokens": 1200}}
    with logged(logging.DEBUG) as lines:
        async with serving(script_for("a"), limits=limits) as client:
            await client.post("/generate", body)
            await client.stream("/generate_stream", body)

    messages = [line["message"] for line in lines if line["level"] == "DEBUG"]
    cut = [f"Input: {long[:1000]}", f"Output: {'a' * 1000}"]
    assert [m for m in messages if m.startswith(("Input", "Output"))] == cut * 2
