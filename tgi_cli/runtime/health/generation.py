"""Generate one token on a server, and say whether that went as it should.

TGI's own route; where there is none, `/v1/completions`, then chat. The request goes through the
ordinary queue, under a name that the server's log can show.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from typing import Any, NamedTuple

from tgi_cli.runtime.config.probe import Target
from tgi_cli.runtime.health.wire import Connection, Head

_PROMPT = "Hello"
_ROUTES: tuple[tuple[str, dict[str, Any]], ...] = (
    (
        "/generate_stream",
        {"inputs": _PROMPT, "parameters": {"max_new_tokens": 1, "details": True}},
    ),
    (
        "/v1/completions",
        {"model": "tgi", "prompt": _PROMPT, "max_tokens": 1, "temperature": 0, "stream": True},
    ),
    (
        "/v1/chat/completions",
        {
            "model": "tgi",
            "messages": [{"role": "user", "content": _PROMPT}],
            "max_tokens": 1,
            "temperature": 0,
            "stream": True,
        },
    ),
)


class Generated(NamedTuple):
    status: str  # ok, busy, unauthorized or unhealthy
    message: str
    ttft_s: float | None = None  # from the request to the token


def generate_one_token(target: Target, api_key: str | None, deadline_s: float) -> Generated:
    """Return how it went. Raises `WireError`."""
    headers = {"x-request-id": f"tgi-health-{os.getpid()}-{time.time_ns() // 1_000_000}"}
    if api_key is not None:
        headers["authorization"] = f"Bearer {api_key}"
    for path, body in _ROUTES:
        with Connection(target, deadline_s) as connection:
            start_s = time.monotonic()
            head = connection.send("POST", path, headers, json.dumps(body).encode())
            if head.status in (404, 405):
                continue
            return _judge(connection, head, start_s)
    return Generated("unhealthy", "the server has no route that generates")


def _judge(connection: Connection, head: Head, start_s: float) -> Generated:
    if head.status == 429:
        return Generated("busy", "the server is full")
    if head.status in (401, 403):
        return Generated("unauthorized", f"status {head.status}: the key is missing or wrong")
    if head.status != 200:
        return Generated("unhealthy", f"status {head.status}")
    num_tokens, is_finished, ttft_s = 0, False, None
    for event in _events(connection, head):
        if "error" in event:
            if event.get("error_type") == "overloaded" or _code(event["error"]) == 429:
                return Generated("busy", "the server is full")
            return Generated("unhealthy", "the stream ended in an error")
        token = _read_event(event)
        if token.is_token:
            num_tokens += 1
            ttft_s = ttft_s or time.monotonic() - start_s
        is_finished = is_finished or token.is_finished
    if num_tokens != 1:
        return Generated("unhealthy", f"{num_tokens} token events in place of 1", ttft_s)
    if not is_finished:
        return Generated("unhealthy", "the stream has no finish reason", ttft_s)
    return Generated("ok", "generates", ttft_s)


def _code(error: object) -> object:
    return error.get("http_status_code") if isinstance(error, dict) else None


def _events(connection: Connection, head: Head) -> Iterator[dict[str, Any]]:
    """Yield the events of a stream that are JSON objects."""
    rest = b""
    for part in connection.body_parts(head):
        *lines, rest = (rest + part).split(b"\n")
        for line in lines:
            if line.startswith(b"data:"):
                try:
                    event = json.loads(line.removeprefix(b"data:"))
                except ValueError:
                    continue  # the end mark
                if isinstance(event, dict):
                    yield event


class _Event(NamedTuple):
    is_token: bool
    is_finished: bool


def _read_event(event: dict[str, Any]) -> _Event:
    token = event.get("token")
    if isinstance(token, dict):  # TGI's
        details = event.get("details") or {}
        return _Event(token.get("id") is not None, bool(details.get("finish_reason")))
    choices = event.get("choices") or []
    choice = choices[0] if isinstance(choices, list) and choices else {}
    delta = choice.get("delta") or {}
    text = choice.get("text") or delta.get("content") or delta.get("reasoning_content")
    is_finished = bool(choice.get("finish_reason"))
    # A token whose text is empty or special comes with the finish reason and nothing else.
    is_token = bool(text) or (is_finished and ("text" in choice or "content" in delta))
    return _Event(is_token, is_finished)
