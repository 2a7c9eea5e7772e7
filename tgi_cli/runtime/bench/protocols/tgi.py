"""TGI's native routes: `/generate_stream`, and `/generate` for replies as a whole."""

from __future__ import annotations

from typing import Any

import msgspec

from tgi_cli.errors import UsageError
from tgi_cli.runtime.bench.protocols.protocol import (
    BodyOptions,
    Protocol,
    Reading,
    Timings,
    error_text,
    forced_length,
    merged,
    prompt_text,
)
from tgi_cli.runtime.bench.stages import PromptInput


class _Token(msgspec.Struct):
    text: str = ""


class _Details(msgspec.Struct):
    finish_reason: str | None = None
    generated_tokens: int | None = None
    input_length: int | None = None
    prefill: list[msgspec.Raw] = []


class _Event(msgspec.Struct):
    token: _Token | None = None
    generated_text: str | None = None
    details: _Details | None = None
    error: Any = None
    timings: Timings | None = None


_decode = msgspec.json.Decoder(_Event).decode


class Tgi(Protocol):
    name = "tgi"

    def __init__(self, options: BodyOptions) -> None:
        super().__init__(options)
        self.path = "/generate_stream" if options.streams else "/generate"

    def _body(self, prompt: PromptInput, output_tokens: int | None) -> dict[str, Any]:
        if prompt.token_ids is not None:
            raise UsageError("TGI's protocol has no input as token ids.")
        options = self._options
        parameters: dict[str, Any] = {"details": True}
        if output_tokens is not None:
            parameters["max_new_tokens"] = output_tokens
        if options.temperature is not None:  # 0 is refused: it is said by not sampling
            parameters["do_sample"] = options.temperature > 0
            if options.temperature > 0:
                parameters["temperature"] = options.temperature
        if options.top_p is not None:
            parameters["top_p"] = options.top_p
        parameters |= forced_length(options, output_tokens)
        return merged({"inputs": prompt_text(prompt), "parameters": parameters}, prompt.fields)

    def continued(self, body: bytes, said: list[tuple[bytes, str]]) -> bytes:
        return continued_text(body, said, "inputs")

    def read(self, event: bytes, reading: Reading) -> bool:
        decoded = _decode(event)
        if decoded.error is not None:
            reading.error = error_text(decoded.error)
            return False
        if decoded.generated_text is not None:
            _take_end(decoded, reading)
        if decoded.token is None:
            return False
        reading.num_ids += 1
        reading.text.append(decoded.token.text)
        reading.has_content = True
        return True

    def read_whole(self, body: bytes, reading: Reading) -> None:
        decoded = _decode(body)
        if decoded.error is not None:
            reading.error = error_text(decoded.error)
            return
        if decoded.generated_text is not None:
            reading.text.append(decoded.generated_text)
            reading.has_content = True
            _take_end(decoded, reading)


def _take_end(event: _Event, reading: Reading) -> None:
    reading.has_ended = True
    details = event.details
    if details is not None:
        reading.finish_reason = details.finish_reason
        reading.input_tokens = details.input_length
        if reading.input_tokens is None and details.prefill:
            reading.input_tokens = len(details.prefill)
        if details.generated_tokens is not None:
            reading.usage = details.generated_tokens
    if event.timings is not None and event.timings.queue_ms is not None:
        reading.queue_s = event.timings.queue_ms / 1e3


def continued_text(body: bytes, said: list[tuple[bytes, str]], field: str) -> bytes:
    """Put earlier prompts and answers in front of the prompt in `field`, as one text."""
    if not said:
        return body
    decoded = msgspec.json.decode(body)
    before = "".join(f"{msgspec.json.decode(asked)[field]}{answer}" for asked, answer in said)
    decoded[field] = before + decoded[field]
    return msgspec.json.encode(decoded)
