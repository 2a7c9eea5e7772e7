"""Number types of the wire, and pieces that several routes share (spec/http-api.md section 2.1)."""

from __future__ import annotations

import math
from ctypes import c_float
from typing import Annotated, Protocol, runtime_checkable

import msgspec
from msgspec import Meta

Unsigned32 = Annotated[int, Meta(ge=0, le=2**32 - 1)]
Unsigned64 = Annotated[int, Meta(ge=0)]  # `check_unsigned64` has the upper bound
Signed32 = Annotated[int, Meta(ge=-(2**31), le=2**31 - 1)]


def check_unsigned64(value: int | None) -> None:
    """Raise `ValueError`, which msgspec reports with the field's path, above 2**64 - 1.

    msgspec's own bounds end at 2**63.
    """
    if value is not None and value >= 2**64:
        raise ValueError("Expected `int` <= 18446744073709551615")


def float32(value: float) -> float:
    """Return the nearest number of 32 bits, as which TGI reads every float; it may be infinite."""
    return c_float(value).value


@runtime_checkable
class HasAliases(Protocol):
    """A body one of whose fields has two names."""

    def settle_aliases(self, raw: bytes) -> None:
        """Forget the field's earlier value where `raw`, the whole body, has both names."""


def comes_last(raw: bytes, *keys: str) -> str:
    """Return the one of `keys`, all of which the object `raw` has, that stands last."""
    order = list(msgspec.json.decode(raw, type=dict[str, msgspec.Raw]))
    return max(keys, key=order.index)


class Usage(msgspec.Struct):
    prompt_tokens: int
    completion_tokens: int
    total_tokens: int


class ErrorBody(msgspec.Struct):
    error: str
    error_type: str


def finite(logprob: float) -> float | None:
    """Return `logprob` as JSON has it: null for NaN and infinities, and one kind of zero."""
    return logprob + 0.0 if math.isfinite(logprob) else None
