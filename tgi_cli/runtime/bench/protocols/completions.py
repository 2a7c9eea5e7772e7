"""OpenAI's `/v1/completions`: a prompt as text or as token ids."""

from __future__ import annotations

from typing import Any

import msgspec

from tgi_cli.runtime.bench.protocols.openai import OpenAIChoice, OpenAIEvent, OpenAIProtocol
from tgi_cli.runtime.bench.protocols.protocol import (
    Reading,
    forced_length,
    openai_fields,
    prompt_text,
)
from tgi_cli.runtime.bench.protocols.tgi import continued_text
from tgi_cli.runtime.bench.stages import PromptInput


class _Choice(OpenAIChoice):
    text: str | None = None

    def take_text(self, reading: Reading) -> bool:
        if not self.text:
            return False
        reading.text.append(self.text)
        reading.has_text = reading.has_content = True
        return True


class Completions(OpenAIProtocol):
    name = "completions"
    path = "/v1/completions"
    decoder = msgspec.json.Decoder(OpenAIEvent[_Choice])

    def _body(self, prompt: PromptInput, output_tokens: int | None) -> dict[str, Any]:
        given = prompt.token_ids
        body: dict[str, Any] = {"prompt": prompt_text(prompt) if given is None else given}
        if output_tokens is not None:
            body["max_tokens"] = output_tokens
        body |= forced_length(self._options, output_tokens)
        return body | openai_fields(self._options, prompt)

    def continued(self, body: bytes, said: list[tuple[bytes, str]]) -> bytes:
        return continued_text(body, said, "prompt")
