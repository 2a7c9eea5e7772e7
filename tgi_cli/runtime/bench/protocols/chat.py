"""OpenAI's `/v1/chat/completions`. Reasoning and function calls are output like any other."""

from __future__ import annotations

from typing import Any

import msgspec

from tgi_cli.runtime.bench.protocols.openai import OpenAIChoice, OpenAIEvent, OpenAIProtocol
from tgi_cli.runtime.bench.protocols.protocol import (
    Reading,
    forced_length,
    openai_fields,
)
from tgi_cli.runtime.bench.stages import PromptInput


class _Message(msgspec.Struct):
    """A delta of a stream, or the message of a whole reply."""

    content: str | None = None
    reasoning: str | None = None
    reasoning_content: str | None = None
    refusal: str | None = None
    tool_calls: Any = None  # a list; TGI once sent one object


class _Choice(OpenAIChoice):
    delta: _Message | None = None
    message: _Message | None = None

    def take_text(self, reading: Reading) -> bool:
        message = self.delta or self.message
        return message is not None and _take_text(message, reading)


class Chat(OpenAIProtocol):
    name = "chat"
    path = "/v1/chat/completions"
    decoder = msgspec.json.Decoder(OpenAIEvent[_Choice])

    def _body(self, prompt: PromptInput, output_tokens: int | None) -> dict[str, Any]:
        messages = prompt.messages
        if messages is None:
            messages = [{"role": "user", "content": prompt.text}]
        body: dict[str, Any] = {"messages": messages}
        if output_tokens is not None:
            is_new = self._options.max_completion_tokens
            body["max_completion_tokens" if is_new else "max_tokens"] = output_tokens
        body |= forced_length(self._options, output_tokens)
        return body | openai_fields(self._options, prompt)

    def continued(self, body: bytes, said: list[tuple[bytes, str]]) -> bytes:
        if not said:
            return body
        decoded = msgspec.json.decode(body)
        before: list[Any] = []
        for asked, answer in said:
            before += msgspec.json.decode(asked)["messages"]
            before.append({"role": "assistant", "content": answer})
        decoded["messages"] = before + decoded["messages"]
        return msgspec.json.encode(decoded)


def _take_text(message: _Message, reading: Reading) -> bool:
    reasoning = message.reasoning or message.reasoning_content
    if reasoning:
        reading.text.append(reasoning)
        reading.num_reasoning_chars += len(reasoning)
        reading.has_text = True
    content = message.content or message.refusal
    if message.tool_calls:
        content = (content or "") + _call_text(message.tool_calls)
    if content:
        reading.text.append(content)
        reading.has_text = reading.has_content = True
    return bool(reasoning or content)


def _call_text(calls: Any) -> str:
    """Return the text of function calls that the model wrote: names and arguments."""
    text = ""
    for call in calls if isinstance(calls, list) else [calls]:
        function = call.get("function") if isinstance(call, dict) else None
        if isinstance(function, dict):
            text += str(function.get("name") or "") + str(function.get("arguments") or "")
    return text
