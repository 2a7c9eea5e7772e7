"""OpenAI's `/v1/completions`: a prompt as text or as token ids."""

from __future__ import annotations

from typing import Any

import msgspec

from tgi_cli.runtime.bench.protocols.protocol import (
    Protocol,
    Reading,
    Timings,
    Usage,
    error_text,
    forced_length,
    openai_fields,
    prompt_text,
    take_usage,
)
from tgi_cli.runtime.bench.protocols.tgi import continued_text
from tgi_cli.runtime.bench.stages import PromptInput


class _Choice(msgspec.Struct):
    text: str | None = None
    finish_reason: str | None = None
    token_ids: list[int] | None = None


class _Event(msgspec.Struct):
    choices: list[_Choice] = []
    usage: Usage | None = None
    error: Any = None
    timings: Timings | None = None


_decode = msgspec.json.Decoder(_Event).decode


class Completions(Protocol):
    name = "completions"
    path = "/v1/completions"

    def _body(self, prompt: PromptInput, output_tokens: int | None) -> dict[str, Any]:
        given = prompt.token_ids
        body: dict[str, Any] = {"prompt": prompt_text(prompt) if given is None else given}
        if output_tokens is not None:
            body["max_tokens"] = output_tokens
        body |= forced_length(self._options, output_tokens)
        return body | openai_fields(self._options, prompt)

    def continued(self, body: bytes, said: list[tuple[bytes, str]]) -> bytes:
        return continued_text(body, said, "prompt")

    def read(self, event: bytes, reading: Reading) -> bool:
        if event == b"[DONE]":
            reading.has_ended = True
            return False
        decoded = _decode(event)
        if decoded.error is not None:
            reading.error = error_text(decoded.error)
            return False
        has_token = decoded.usage is not None and take_usage(decoded.usage, reading)
        has_token = has_token and bool(decoded.choices)  # a last event with the total alone
        for choice in decoded.choices:
            if choice.text:
                reading.text.append(choice.text)
                reading.has_text = reading.has_content = has_token = True
            if choice.token_ids:
                reading.num_ids += len(choice.token_ids)
                has_token = True
            if choice.finish_reason is not None:
                reading.finish_reason = choice.finish_reason
        if decoded.timings is not None and decoded.timings.queue_ms is not None:
            reading.queue_s = decoded.timings.queue_ms / 1e3
        return has_token

    def read_whole(self, body: bytes, reading: Reading) -> None:
        self.read(body, reading)
        reading.has_ended = reading.finish_reason is not None
