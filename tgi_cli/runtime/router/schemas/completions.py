"""`/v1/completions`: spec/http-api.md section 9."""

from __future__ import annotations

from typing import Any

import msgspec
from msgspec import UNSET, UnsetType

from tgi_cli.runtime.router.schemas.common import (
    Unsigned32,
    Unsigned64,
    Usage,
    check_unsigned64,
)


class StreamOptions(msgspec.Struct):
    include_usage: bool | None = False


class CompletionRequest(msgspec.Struct, kw_only=True):
    prompt: str | list[str]
    model: str | None = None
    max_tokens: Unsigned32 | None = None
    temperature: float | None = None
    top_p: float | None = None
    stream: bool | None = False
    seed: Unsigned64 | None = None
    suffix: str | None = None
    repetition_penalty: float | None = None
    frequency_penalty: float | None = None
    presence_penalty: float | None = None
    stop: str | list[str] | None = None
    n: Unsigned32 | None = None
    best_of: Unsigned32 | None = None
    echo: bool | None = None
    logprobs: Any = None
    stream_options: StreamOptions | None = None

    def __post_init__(self) -> None:
        check_unsigned64(self.seed)


class CompletionChoice(msgspec.Struct):
    index: int
    text: str
    logprobs: None
    finish_reason: str


class Completion(msgspec.Struct):
    object: str
    id: str
    created: int
    model: str
    system_fingerprint: str
    choices: list[CompletionChoice]
    usage: Usage | UnsetType = UNSET
