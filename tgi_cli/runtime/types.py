"""What a request is once it is validated: the words that router and engine share.

Nothing here knows HTTP, tensors or text. Token positions count from 0 over prompt and output.
"""

from __future__ import annotations

import enum
from typing import Literal

import msgspec


class FinishReason(enum.StrEnum):
    """Why a sequence ended, in TGI's words (spec/http-api.md section 16)."""

    LENGTH = "length"
    EOS_TOKEN = "eos_token"
    STOP_SEQUENCE = "stop_sequence"  # only the router finds these: it has the text


class JoinReason(enum.StrEnum):
    """Why new sequences joined a running batch, in TGI's words (spec/scheduling.md section 3)."""

    CHUNKING = "chunking"  # prompts share steps with decodes, so there is always a reason
    BACKPRESSURE = "backpressure"  # enough of them waited
    WAIT_EXCEEDED = "wait_exceeded"  # they had waited for long enough


class Grammar(msgspec.Struct, frozen=True, array_like=True):
    """What an output must match as a whole, in the form in which it can be compared and cached."""

    kind: Literal["json_schema", "regex", "choice", "lark"]
    source: str  # JSON of the schema; the pattern; JSON list of strings; the Lark text


class SamplingParams(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Everything that turns logits into a token. Neutral values switch a step off.

    Order of the steps: watermark, repetition penalty, frequency and presence penalty, bias,
    grammar, temperature, top-k, top-p, min-p, typical-p, pick (spec/http-api.md section 17).
    """

    do_sample: bool = False  # false: arg-max
    temperature: float = 1.0  # > 0
    top_k: int = 0  # 0: off
    top_p: float = 1.0  # 1: off
    typical_p: float = 1.0  # 1: off
    repetition_penalty: float = 1.0  # > 0; over prompt and output
    frequency_penalty: float = 0.0  # -2 .. 2; times the count in the output
    presence_penalty: float = 0.0  # -2 .. 2; once for each id in the output
    min_p: float = 0.0  # 0: off; share of the best token's probability that a token must have
    logit_bias: dict[int, float] = {}  # by token id, added to its score; -100 .. 100
    min_tokens: int = 0  # new tokens before the end of sequence may be chosen
    watermark: bool = False
    seed: int = 0  # unsigned 64 bit; with the position it decides the random number (Philox)

    @property
    def takes_best(self) -> bool:
        """Whether the next token is simply the one with the model's highest score."""
        return not (
            self.do_sample
            or self.repetition_penalty != 1.0
            or self.frequency_penalty
            or self.presence_penalty
            or self.logit_bias
            or self.min_tokens
            or self.watermark
        )
