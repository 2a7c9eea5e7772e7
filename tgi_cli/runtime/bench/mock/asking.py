"""What a body asks for: how much text, in which form; and which bodies are refused."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from tgi_cli.runtime.bench.mock.counting import Counter
from tgi_cli.runtime.config.mock import Dialect, MockOptions

_DEFAULT_OUTPUT_TOKENS = 100  # TGI's
_MAX_OUTPUT_TOKENS = 1_000_000
_LENGTH_FIELDS: dict[Dialect, tuple[str, ...]] = {
    "tgi": ("max_new_tokens",),
    "completions": ("max_tokens",),
    "chat": ("max_completion_tokens", "max_tokens"),
}


class Refused(Exception):
    """A body that the mock doesn't take; the text goes to the client."""


@dataclass(frozen=True, slots=True)
class Ask:
    input_units: Sequence[int]  # token ids, or numbers that stand for words
    num_output_tokens: int
    ends_by_itself: bool  # before its limit
    streams: bool
    wants_usage: bool
    wants_continuous_usage: bool
    wants_details: bool


def read_ask(
    dialect: Dialect,
    body: bytes,
    *,
    streams: bool,
    options: MockOptions,
    counter: Counter,
    index: int,
) -> Ask:
    """Return what `body` asks for. Raises `Refused`."""
    fields = _decoded(body)
    parameters = _mapping(fields, "parameters") if dialect == "tgi" else fields
    stream_options = _mapping(fields, "stream_options")
    for name in options.refused_fields:
        if name in fields or name in parameters or name in stream_options:
            raise Refused(f"Extra inputs are not permitted: {name}")
    if dialect == "tgi" and parameters.get("temperature") == 0:
        raise Refused("Input validation error: `temperature` must be strictly positive")
    limit = next(
        (
            _whole(parameters, name)
            for name in _LENGTH_FIELDS[dialect]
            if parameters.get(name) is not None
        ),
        _DEFAULT_OUTPUT_TOKENS,
    )
    if not 1 <= limit <= _MAX_OUTPUT_TOKENS:
        raise Refused(f"Input validation error: {limit} output tokens can't be made")
    length = limit
    if options.tokens is not None and not parameters.get("ignore_eos"):
        own = round(options.tokens.draw(random.Random(f"{options.seed}:length:{index}")))
        length = min(limit, max(own, 1, _whole(parameters, "min_tokens")))
    return Ask(
        input_units=_input_units(dialect, fields, options, counter),
        num_output_tokens=length,
        ends_by_itself=length < limit,
        streams=streams or bool(fields.get("stream")),
        wants_usage=bool(stream_options.get("include_usage")),
        wants_continuous_usage=bool(stream_options.get("continuous_usage_stats")),
        wants_details=bool(parameters.get("details")),
    )


def _decoded(body: bytes) -> dict[str, Any]:
    try:
        fields = msgspec.json.decode(body)
    except msgspec.DecodeError:
        fields = None
    if not isinstance(fields, dict):
        raise Refused("The body is no JSON object")
    return fields


def _mapping(fields: dict[str, Any], name: str) -> dict[str, Any]:
    value = fields.get(name)
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise Refused(f"{name} is no object")
    return value


def _whole(fields: dict[str, Any], name: str) -> int:
    value = fields.get(name) or 0
    if not isinstance(value, int):
        raise Refused(f"{name} is no whole number")
    return value


def _input_units(
    dialect: Dialect, fields: dict[str, Any], options: MockOptions, counter: Counter
) -> Sequence[int]:
    if dialect == "chat":
        return counter.units(_chat_text(fields), num_extra=options.num_template_tokens)
    prompt = fields.get("inputs" if dialect == "tgi" else "prompt")
    if isinstance(prompt, list) and dialect == "completions":
        if not all(isinstance(token_id, int) for token_id in prompt):
            raise Refused("prompt is neither a text nor a list of token ids")
        if "token_ids" in options.refused_fields:
            raise Refused("Extra inputs are not permitted: token ids in prompt")
        return prompt
    if not isinstance(prompt, str):
        raise Refused(f"{'inputs' if dialect == 'tgi' else 'prompt'} is no text")
    return counter.units(prompt)


def _chat_text(fields: dict[str, Any]) -> str:
    messages = fields.get("messages")
    if not isinstance(messages, list) or not messages:
        raise Refused("messages is no list of messages")
    texts = [
        message["content"]
        for message in messages
        if isinstance(message, dict) and isinstance(message.get("content"), str)
    ]
    if len(texts) < len(messages):
        raise Refused("a message has no text")
    return "\n".join(texts)
