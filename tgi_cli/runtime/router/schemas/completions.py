"""`/v1/completions`: spec/http-api.md section 9."""

from __future__ import annotations

from typing import Any

import msgspec
from msgspec import UNSET, UnsetType

from tgi_cli.runtime.router.grammars import check_shape
from tgi_cli.runtime.router.schemas.common import Unsigned32, Usage
from tgi_cli.runtime.router.schemas.openai import OpenAIRequest

PromptItem = str | int | list[int]


class CompletionRequest(OpenAIRequest, kw_only=True):
    prompt: str | list[PromptItem]  # items of one kind: texts, token ids, or lists of token ids
    suffix: str | None = None
    grammar: dict[str, Any] | None = None  # what `response_format` is on TGI's own routes
    best_of: Unsigned32 | None = None
    echo: bool | None = False
    logprobs: bool | Unsigned32 | None = None  # how many of the best tokens to tell for each

    def __post_init__(self) -> None:
        super().__post_init__()
        check_shape("grammar", self.grammar)


class CompletionLogprobs(msgspec.Struct):
    """One entry for each token, of the prompt too if it is echoed; its first has no score."""

    tokens: list[str]
    token_logprobs: list[float | None]
    top_logprobs: list[dict[str, float] | None]
    text_offset: list[int]  # characters, in the choice's text


class CompletionChoice(msgspec.Struct):
    index: int
    text: str
    logprobs: CompletionLogprobs | None
    finish_reason: str | None


class Completion(msgspec.Struct):
    object: str
    id: str
    created: int
    model: str
    system_fingerprint: str
    choices: list[CompletionChoice]
    usage: Usage | UnsetType = UNSET


class CompletionChunk(msgspec.Struct):
    """An event of a stream but the last of each prompt, which is a `Completion`: TGI's order."""

    object: str
    id: str
    created: int
    choices: list[CompletionChoice]
    model: str
    system_fingerprint: str
    usage: UnsetType | None = UNSET
