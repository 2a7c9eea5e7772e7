"""What the protocols have in common: the options of a body, and what is read from a reply."""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from tgi_cli.runtime.bench.stages import PromptInput

ProtocolName = Literal["tgi", "completions", "chat"]


class BodyOptions(msgspec.Struct, frozen=True, kw_only=True):
    """What every body of a run says. The switches are what the probe found to be accepted."""

    model: str | None = None
    streams: bool = True
    temperature: float | None = 0.0
    top_p: float | None = None
    fields: dict[str, Any] = {}  # --body
    include_usage: bool = True
    continuous_usage_stats: bool = False
    max_completion_tokens: bool = True  # else max_tokens, in a chat
    ignore_eos: bool = False
    min_tokens: bool = False


class Reading:
    """What the events of one reply have said so far. `usage` is -1 until the server counts."""

    __slots__ = (
        "cached_tokens",
        "error",
        "finish_reason",
        "has_content",
        "has_ended",
        "has_text",
        "input_tokens",
        "num_ids",
        "num_reasoning_chars",
        "queue_s",
        "text",
        "usage",
    )

    def __init__(self) -> None:
        self.text: list[str] = []  # since it was last emptied
        self.num_ids = 0  # tokens that were named one by one
        self.usage = -1  # output tokens so far, as the server counts them
        self.num_reasoning_chars = 0
        self.has_text = False
        self.has_content = False  # something that isn't reasoning
        self.has_ended = False
        self.finish_reason: str | None = None
        self.error: str | None = None
        self.input_tokens: int | None = None
        self.cached_tokens: int | None = None
        self.queue_s: float | None = None


class Protocol:
    """A way to ask. Instances hold the options; `read` and `read_whole` keep nothing."""

    path: str
    name: ProtocolName

    def __init__(self, options: BodyOptions) -> None:
        self._options = options

    def body(self, prompt: PromptInput, output_tokens: int | None) -> bytes:
        """Return the JSON that asks for `output_tokens` after `prompt`."""
        return msgspec.json.encode(merged(self._body(prompt, output_tokens), self._options.fields))

    def continued(self, body: bytes, said: list[tuple[bytes, str]]) -> bytes:
        """Put what was said before, bodies and answers in turn, in front of what `body` asks."""
        raise NotImplementedError

    def read(self, event: bytes, reading: Reading) -> bool:
        """Take one event of a stream; return whether it holds a token.

        Raises:
            msgspec.DecodeError: it isn't JSON, or not of this protocol.
        """
        raise NotImplementedError

    def read_whole(self, body: bytes, reading: Reading) -> None:
        """Take a reply that wasn't streamed. Raises `msgspec.DecodeError`."""
        raise NotImplementedError

    def _body(self, prompt: PromptInput, output_tokens: int | None) -> dict[str, Any]:
        raise NotImplementedError


class PromptTokensDetails(msgspec.Struct):
    cached_tokens: int | None = None


class Usage(msgspec.Struct):
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    prompt_tokens_details: PromptTokensDetails | None = None


class Timings(msgspec.Struct):
    queue_ms: float | None = None


def take_usage(usage: Usage, reading: Reading) -> bool:
    """Keep what the server has counted; return whether the count has grown since it began.

    A count that comes for the first time after text was read is the total of a server that counts
    once: it says nothing of its event.
    """
    if usage.prompt_tokens is not None:
        reading.input_tokens = usage.prompt_tokens
    if usage.prompt_tokens_details is not None:
        reading.cached_tokens = usage.prompt_tokens_details.cached_tokens
    if usage.completion_tokens is None:
        return False
    counts_on = reading.usage >= 0 or not reading.has_text
    grew = usage.completion_tokens > max(reading.usage, 0)
    reading.usage = usage.completion_tokens
    return counts_on and grew


def error_text(error: Any) -> str:
    """Return the message of an error event, in whichever shape it comes."""
    if isinstance(error, dict) and "message" in error:
        return str(error["message"])
    return str(error)


def merged(body: dict[str, Any], fields: dict[str, Any]) -> dict[str, Any]:
    """Return `body` with `fields` over it; objects are merged, all else is replaced."""
    result = dict(body)
    for name, value in fields.items():
        old = result.get(name)
        is_deep = isinstance(old, dict) and isinstance(value, dict)
        result[name] = merged(old, value) if is_deep else value  # type: ignore[arg-type]
    return result


def prompt_text(prompt: PromptInput) -> str:
    """Return an input as plain text; messages are put one below the other."""
    if prompt.text is not None:
        return prompt.text
    return "\n".join(str(message.get("content") or "") for message in prompt.messages or [])


def openai_fields(options: BodyOptions, prompt: PromptInput) -> dict[str, Any]:
    """Return the fields that completions and chat share, but for the lengths."""
    fields: dict[str, Any] = {"stream": options.streams}
    if options.model is not None:
        fields["model"] = options.model
    if options.temperature is not None:
        fields["temperature"] = options.temperature
    if options.top_p is not None:
        fields["top_p"] = options.top_p
    if options.streams and options.include_usage:
        fields["stream_options"] = {"include_usage": True}
        if options.continuous_usage_stats:
            fields["stream_options"]["continuous_usage_stats"] = True
    return fields | prompt.fields


def forced_length(options: BodyOptions, output_tokens: int | None) -> dict[str, Any]:
    """Return the fields that keep a reply from ending early, as far as the server takes them."""
    fields: dict[str, Any] = {}
    if options.ignore_eos:
        fields["ignore_eos"] = True
    if options.min_tokens and output_tokens is not None:
        fields["min_tokens"] = output_tokens
    return fields
