"""`/v1/chat/completions`: spec/http-api.md section 10."""

from __future__ import annotations

from typing import Any

import msgspec

from tgi_cli.runtime.router.schemas.common import Unsigned32, Usage
from tgi_cli.runtime.router.schemas.openai import OpenAIRequest


class ChatMessage(msgspec.Struct, kw_only=True):
    role: str
    content: str | list[dict[str, Any]] | None = None
    name: str | None = None
    tool_calls: list[dict[str, Any]] | None = None
    tool_call_id: str | None = None


class ChatRequest(OpenAIRequest, kw_only=True):
    messages: list[ChatMessage]
    max_completion_tokens: Unsigned32 | None = None
    logprobs: bool | None = None
    top_logprobs: Unsigned32 | None = None
    tools: list[dict[str, Any]] | None = None
    tool_choice: Any = None
    continue_final_message: bool | None = None
    add_generation_prompt: bool | None = None


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
