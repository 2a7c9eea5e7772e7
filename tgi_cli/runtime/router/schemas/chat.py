"""`/v1/chat/completions`: spec/http-api.md section 10."""

from __future__ import annotations

from typing import Any

import msgspec

from tgi_cli.runtime.router.schemas.common import Unsigned32, Usage, comes_last
from tgi_cli.runtime.router.schemas.facts import SimpleToken
from tgi_cli.runtime.router.schemas.openai import OpenAIRequest
from tgi_cli.runtime.router.schemas.tools import (
    AssistantDelta,
    AssistantMessage,
    MessageToolCall,
    NamedTool,
    Tool,
)


class TextPart(msgspec.Struct, tag_field="type", tag="text"):
    text: str


class ImageUrl(msgspec.Struct):
    url: str


class ImagePart(msgspec.Struct, tag_field="type", tag="image_url"):
    image_url: ImageUrl


class ChatMessage(msgspec.Struct, kw_only=True):
    role: str
    content: str | list[TextPart | ImagePart] | None = None
    name: str | None = None
    tool_calls: list[MessageToolCall] | None = None
    tool_call_id: str | None = None

    def __post_init__(self) -> None:
        if self.content is None and not self.tool_calls:
            raise ValueError("missing field `content`")


class ChatRequest(OpenAIRequest, kw_only=True):
    messages: list[ChatMessage]
    max_completion_tokens: Unsigned32 | None = None
    logprobs: bool | None = None
    top_logprobs: Unsigned32 | None = None
    tools: list[Tool] | None = None
    tool_choice: str | NamedTool | None = None  # auto, none, required, or a function's name
    tool_prompt: str | None = None
    parallel_tool_calls: bool | None = None  # null: true, where the model can
    # Beyond OpenAI's.
    continue_final_message: bool | None = None
    add_generation_prompt: bool | None = None
    chat_template_kwargs: dict[str, Any] | None = None

    def settle_aliases(self, raw: bytes) -> None:
        """Let the later of `max_tokens` and `max_completion_tokens` win, where both are given."""
        if self.max_completion_tokens is None:
            return
        keys = ("max_tokens", "max_completion_tokens")
        if self.max_tokens is None or comes_last(raw, *keys) == "max_completion_tokens":
            self.max_tokens = self.max_completion_tokens
        self.max_completion_tokens = None


class TopLogprob(msgspec.Struct):
    token: str
    logprob: float | None
    bytes: list[int]  # of `token` in UTF-8


class TokenLogprob(msgspec.Struct):
    token: str
    logprob: float | None
    bytes: list[int]
    top_logprobs: list[TopLogprob]


class Logprobs(msgspec.Struct):
    content: list[TokenLogprob]


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
    delta: AssistantDelta
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


class ChatTokens(msgspec.Struct):
    """The reply of `/chat_tokenize`."""

    tokenize_response: list[SimpleToken]
    templated_text: str
