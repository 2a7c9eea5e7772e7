"""The `logprobs` of `/v1/completions`: parallel lists, as OpenAI's first API had them.

A token's text is what it added to the choice's text, so that the texts joined are that text;
special tokens are told in their own form and take no room in it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from tgi_cli.runtime.router.schemas.common import finite
from tgi_cli.runtime.router.schemas.completions import CompletionLogprobs
from tgi_cli.runtime.router.tokens import GeneratedToken, PromptToken


class LogprobsBuilder:
    """Collects one choice's tokens in order; `take` returns those that came since the last one."""

    def __init__(self, num_top: int) -> None:
        self._num_top = num_top  # best tokens to tell for each
        self._offset = 0  # characters of the choice's text before the next token
        self._taken = CompletionLogprobs([], [], [], [])

    def add_prompt(self, tokens: Sequence[PromptToken], echo: str) -> None:
        """Add the prompt's tokens, which stand in `echo`. The first one has no score."""
        offsets = offsets_in(echo, [token.text for token in tokens])
        for token, self._offset in zip(tokens, offsets, strict=True):
            self._add(token)
        self._offset = len(echo)

    def add(self, token: GeneratedToken) -> None:
        self._add(token)
        if not token.is_special:
            self._offset += len(token.text)

    def take(self) -> CompletionLogprobs:
        taken, self._taken = self._taken, CompletionLogprobs([], [], [], [])
        return taken

    def _add(self, token: PromptToken | GeneratedToken) -> None:
        logprob = None if token.logprob is None else finite(token.logprob)
        taken = self._taken
        taken.tokens.append(token.text)
        taken.token_logprobs.append(logprob)
        taken.top_logprobs.append(None if logprob is None else self._best(token, logprob))
        taken.text_offset.append(self._offset)

    def _best(self, token: PromptToken | GeneratedToken, logprob: float) -> dict[str, float]:
        """Return the best tokens by their text, and the token itself, which may be one of them.

        Of tokens with the same text, such as two parts of characters, the better one is told.
        """
        best: dict[str, float] = {}
        for top in token.top_tokens[: self._num_top]:  # best first; more come if the last ones tie
            if (score := finite(top.logprob)) is not None:
                best.setdefault(token.text if top.id == token.id else top.text, score)
        best.setdefault(token.text, logprob)
        return best


def offsets_in(text: str, pieces: Sequence[str]) -> Iterator[int]:
    """Yield where each piece begins in `text`.

    A piece that isn't there takes no room: a special token that the tokenizer put before it, a
    space that the tokenizer made up.
    """
    offset = 0
    for piece in pieces:
        yield offset
        if text.startswith(piece, offset):
            offset += len(piece)
        elif piece.startswith(" ") and text.startswith(piece[1:], offset):
            offset += len(piece) - 1
