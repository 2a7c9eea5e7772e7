"""`/generate`, `/generate_stream`, `/` and `/tokenize`: spec/http-api.md sections 6, 7 and 8."""

from __future__ import annotations

from typing import Any

import msgspec
from msgspec import UNSET, UnsetType

from tgi_cli.runtime.router.grammars import check_shape
from tgi_cli.runtime.router.schemas.common import (
    Signed32,
    Unsigned32,
    Unsigned64,
    check_unsigned64,
    comes_last,
)


class GenerateParameters(msgspec.Struct, kw_only=True):
    """Null means absent for every field. Ranges are `validation.py`'s: their errors have texts."""

    best_of: Unsigned64 | None = None
    temperature: float | None = None
    repetition_penalty: float | None = None
    frequency_penalty: float | None = None
    top_k: Signed32 | None = None
    top_p: float | None = None
    typical_p: float | None = None
    do_sample: bool | None = False
    max_new_tokens: Unsigned32 | None = None
    return_full_text: bool | None = None
    stop: list[str] | None = None
    stop_sequences: list[str] | None = None  # what very old clients call `stop`
    truncate: Unsigned64 | None = None
    watermark: bool | None = False
    details: bool | None = False
    decoder_input_details: bool | None = False
    seed: Unsigned64 | None = None
    top_n_tokens: Unsigned32 | None = None
    grammar: dict[str, Any] | None = None
    adapter_id: str | None = None
    # Beyond TGI's.
    presence_penalty: float | None = None
    min_p: float | None = None
    min_tokens: Unsigned32 | None = None
    ignore_eos: bool | None = False
    logit_bias: dict[str, float] | None = None  # by token id

    def __post_init__(self) -> None:
        for value in (self.best_of, self.truncate, self.seed):
            check_unsigned64(value)
        check_shape("grammar", self.grammar)


class GreedyParameters(GenerateParameters, kw_only=True):
    """Greedy whatever cut-offs are given: what temperature 0 means on OpenAI's routes."""


class _RawParameters(msgspec.Struct):
    parameters: msgspec.Raw


def settle_stop(given: GenerateParameters | None, raw: bytes) -> None:
    """Let the later of `stop` and `stop_sequences` win, where the body `raw` has both."""
    if given is None or given.stop is None or given.stop_sequences is None:
        return
    parameters = msgspec.json.decode(raw, type=_RawParameters).parameters
    if comes_last(bytes(parameters), "stop", "stop_sequences") == "stop_sequences":
        given.stop = given.stop_sequences
    given.stop_sequences = None


class GenerateRequest(msgspec.Struct, kw_only=True):
    inputs: str
    parameters: GenerateParameters | None = None

    def settle_aliases(self, raw: bytes) -> None:
        settle_stop(self.parameters, raw)

    def effective_parameters(self) -> GenerateParameters:
        """Without the key `parameters` TGI samples; with an empty object it doesn't."""
        return self.parameters or GenerateParameters(do_sample=True)


class CompatGenerateRequest(GenerateRequest, kw_only=True):
    """What `/` and `/invocations` take; elsewhere `stream` is one more unknown key."""

    stream: bool | None = False


class PrefillToken(msgspec.Struct):
    id: int
    text: str
    logprob: float | None


class Token(msgspec.Struct):
    id: int
    text: str
    logprob: float | None
    special: bool


class BestOfSequence(msgspec.Struct):
    generated_text: str
    finish_reason: str
    generated_tokens: int
    seed: int | None
    prefill: list[PrefillToken]
    tokens: list[Token]
    top_tokens: list[list[Token]] | UnsetType = UNSET


class Details(msgspec.Struct):
    finish_reason: str
    generated_tokens: int
    seed: int | None
    prefill: list[PrefillToken]
    tokens: list[Token]
    best_of_sequences: list[BestOfSequence] | UnsetType = UNSET
    top_tokens: list[list[Token]] | UnsetType = UNSET


class GenerateReply(msgspec.Struct):
    generated_text: str
    details: Details | UnsetType = UNSET


class StreamDetails(msgspec.Struct):
    finish_reason: str
    generated_tokens: int
    seed: int | None
    input_length: int


class StreamEvent(msgspec.Struct):
    index: int
    token: Token
    top_tokens: list[Token] | UnsetType = UNSET
    generated_text: str | None = None
    details: StreamDetails | None = None
