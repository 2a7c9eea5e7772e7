"""Tokens as clients see them: ids and scores from the engine, with their texts."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from tgi_cli.runtime.ipc.messages import PromptScore, TokenScore
from tgi_cli.runtime.text.detokenizer import Detokenizer
from tgi_cli.runtime.text.tokenizer import Tokenizer
from tgi_cli.runtime.types import FinishReason


class ScoredToken(msgspec.Struct):
    """One of the best tokens at a place, with the text that it would have there."""

    id: int
    text: str
    logprob: float
    is_special: bool


class PromptToken(msgspec.Struct):
    """A token of the prompt. The first has no score: there is nothing before it."""

    id: int
    text: str  # "" while a character is incomplete
    logprob: float | None
    top_tokens: list[ScoredToken]


class GeneratedToken(msgspec.Struct):
    """One token as a client may see it. `text` is "" while a character is incomplete."""

    id: int
    text: str
    logprob: float
    is_special: bool
    finish_reason: FinishReason | None  # of the sequence, on its last token
    top_tokens: Sequence[ScoredToken] = ()


def read_scores(tokenizer: Tokenizer, scores: list[TokenScore]) -> list[ScoredToken]:
    return [
        ScoredToken(
            score.id, tokenizer.token_text(score.id), score.logprob, tokenizer.is_special(score.id)
        )
        for score in scores
    ]


def read_prompt(
    tokenizer: Tokenizer, prompt_ids: list[int], scores: list[PromptScore]
) -> list[PromptToken]:
    """Return the prompt's tokens; `scores` has one for each but the first."""
    detokenizer = Detokenizer(tokenizer, [])
    first = PromptToken(prompt_ids[0], detokenizer.push(prompt_ids[0]), None, [])
    return [first] + [
        PromptToken(
            token_id,
            detokenizer.push(token_id),
            score.logprob,
            read_scores(tokenizer, score.top),
        )
        for token_id, score in zip(prompt_ids[1:], scores, strict=True)
    ]
