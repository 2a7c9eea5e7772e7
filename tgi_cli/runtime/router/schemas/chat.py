"""`/v1/chat/completions`: spec/http-api.md section 10."""

from __future__ import annotations

from typing import Annotated, Any

import msgspec
from msgspec import Meta

from tgi_cli.runtime.router.schemas.common import (
    Unsigned32,
    Unsigned64,
    Usage,
    check_unsigned64,
)
from tgi_cli.runtime.router.schemas.completions import StreamOptions


class ChatMessage(msgspec.Struct, kw_only=True):
    role: str
    content: str | list[dict[str, Any]] | None = None
    name: str | None = None
    tool_calls: list[dict[str, Any]] | None = None
    tool_call_id: str | None = None


class ChatRequest(msgspec.Struct, kw_only=True):
    messages: list[ChatMessage]
    model: str | None = None
    max_tokens: Unsigned32 | None = None
    max_completion_tokens: Unsigned32 | None = None
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    typical_p: float | None = None
    repetition_penalty: float | None = None
    frequency_penalty: float | None = None
    presence_penalty: float | None = None
    truncate: Unsigned64 | None = None
    seed: Unsigned64 | None = None
    stop: str | list[str] | None = None
    stream: bool | None = False
    stream_options: StreamOptions | None = None
    logprobs: bool | None = None
    top_logprobs: Annotated[int, Meta(ge=0, le=2**32 - 1)] | None = None
    tools: list[dict[str, Any]] | None = None
    tool_choice: Any = None
    response_format: dict[str, Any] | None = None
    n: Unsigned32 | None = None
    continue_final_message: bool | None = None
    add_generation_prompt: bool | None = None

    def __post_init__(self) -> None:
        check_unsigned64(self.seed)
        check_unsigned64(self.truncate)


class TokenLogprob(msgspec.Struct):
    token: str
    logprob: float | None
    top_logprobs: list[Any] = []


class Logprobs(msgspec.Struct):
    content: list[TokenLogprob]


class AssistantMessage(msgspec.Struct):
    role: str
    content: str


class ChatChoice(msgspec.Struct):
    index: int
    message: AssistantMessage
    logprobs: Logprobs | None
    finish_reason: str


class ChatCompletion(msgspec.Struct):
    object: str
    id: str
    created: int
    model: str
    system_fingerprint: str
    choices: list[ChatChoice]
    usage: Usage


class ChunkChoice(msgspec.Struct):
    index: int
    delta: AssistantMessage
    logprobs: Logprobs | None
    finish_reason: str | None


class ChatChunk(msgspec.Struct):
    object: str
    id: str
    created: int
    model: str
    system_fingerprint: str
    choices: list[ChunkChoice]
    usage: Usage | None = None
