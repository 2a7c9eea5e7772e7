"""Number types of the wire, and pieces that several routes share (spec/http-api.md section 2.1)."""

from __future__ import annotations

import math
from typing import Annotated

import msgspec
from msgspec import Meta

Unsigned32 = Annotated[int, Meta(ge=0, le=2**32 - 1)]
Unsigned64 = Annotated[int, Meta(ge=0, le=2**64 - 1)]
Signed32 = Annotated[int, Meta(ge=-(2**31), le=2**31 - 1)]


class Usage(msgspec.Struct):
    prompt_tokens: int
    completion_tokens: int
    total_tokens: int


class ErrorBody(msgspec.Struct):
    error: str
    error_type: str


def finite(logprob: float) -> float | None:
    """JSON has no NaN and no infinity: they become null."""
    return logprob if math.isfinite(logprob) else None
