"""What `/v1/completions` and `/v1/chat/completions` have in common on the wire."""

from __future__ import annotations

from typing import Annotated, Any

import msgspec
from msgspec import Meta

from tgi_cli.runtime.router.grammars import check_shape
from tgi_cli.runtime.router.schemas.common import (
    Signed32,
    Unsigned32,
    Unsigned64,
    check_unsigned64,
)


class StreamOptions(msgspec.Struct):
    include_usage: bool | None = False


class OpenAIRequest(msgspec.Struct, kw_only=True):
    """Null means absent for every field. Ranges are `validation.py`'s: their errors have texts."""

    # Any name runs the served model, as with TGI; each event of a stream may hold it.
    model: Annotated[str, Meta(max_length=1024)] | None = None
    max_tokens: Unsigned32 | None = None
    temperature: float | None = None
    top_p: float | None = None
    frequency_penalty: float | None = None
    presence_penalty: float | None = None
    logit_bias: dict[str, float] | list[float] | None = None  # TGI took a list and ignored it
    seed: Unsigned64 | None = None
    stop: str | list[str] | None = None
    n: Unsigned32 | None = None
    stream: bool | None = False
    stream_options: StreamOptions | None = None
    response_format: dict[str, Any] | None = None
    # Beyond OpenAI's.
    top_k: Signed32 | None = None
    typical_p: float | None = None
    min_p: float | None = None
    min_tokens: Unsigned32 | None = None
    ignore_eos: bool | None = False
    repetition_penalty: float | None = None
    truncate: Unsigned64 | None = None
    watermark: bool | None = False
    # Other servers' names for a `response_format`.
    guided_json: dict[str, Any] | str | None = None
    guided_regex: str | None = None
    guided_choice: list[str] | None = None
    guided_grammar: str | None = None

    def __post_init__(self) -> None:
        check_unsigned64(self.seed)
        check_unsigned64(self.truncate)
        check_shape("response_format", self.response_format)

    @property
    def includes_usage(self) -> bool:
        return self.stream_options is not None and bool(self.stream_options.include_usage)


class OpenAIError(msgspec.Struct):
    """OpenAI's own error object, which strict mode replies."""

    message: str
    type: str
    param: str | None
    code: str | None


class OpenAIErrorBody(msgspec.Struct):
    error: OpenAIError
