"""What OpenAI's two routes have in common: how an event is read, wherever its text stands."""

from __future__ import annotations

from typing import Any, ClassVar, Generic, TypeVar

import msgspec

from tgi_cli.runtime.bench.protocols.protocol import (
    Protocol,
    Reading,
    Timings,
    Usage,
    error_text,
    take_usage,
)


class OpenAIChoice(msgspec.Struct):
    finish_reason: str | None = None
    token_ids: list[int] | None = None

    def take_text(self, reading: Reading) -> bool:
        """Keep the text of this choice; return whether it had any."""
        raise NotImplementedError


C = TypeVar("C", bound=OpenAIChoice)


class OpenAIEvent(msgspec.Struct, Generic[C]):
    choices: list[C] = []
    usage: Usage | None = None
    error: Any = None
    timings: Timings | None = None


class OpenAIProtocol(Protocol):
    decoder: ClassVar[msgspec.json.Decoder[Any]]  # of an `OpenAIEvent`

    def read(self, event: bytes, reading: Reading) -> bool:
        if event == b"[DONE]":
            reading.has_ended = True
            return False
        decoded: OpenAIEvent[Any] = self.decoder.decode(event)
        if decoded.error is not None:
            reading.error = error_text(decoded.error)
            return False
        has_token = decoded.usage is not None and take_usage(decoded.usage, reading)
        has_token = has_token and bool(decoded.choices)  # a last event with the total alone
        for choice in decoded.choices:
            if choice.take_text(reading):
                has_token = True
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
