"""Texts of exactly so many tokens, made of words that are one token each.

    words of the vocabulary ─► those that stay one token inside a text ─► draft ─► encode, mend

A draft has about the right length; it is encoded as a whole, and pieces at its end are dropped or
added until its length is right, the special tokens that the tokenizer adds included. Texts begin
and end with a letter wherever the vocabulary allows it, since templates strip blanks.
Spec: bench.md section 7.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from tgi_cli.errors import UsageError
from tgi_cli.runtime.bench.codec import Codec

NONCE_TOKENS = 6  # so many of a thousand words never come twice
_WORD = re.compile(r" [A-Za-z]+")
_START = re.compile(r"[A-Za-z]+")
_MIN_PIECES = 16
_MAX_ROUNDS = 100
_BATCH = 1024  # texts that are encoded in one call
_CALM_ROUNDS = 8  # after so many, pieces that don't work out are drawn anew


@dataclass(slots=True)
class Draft:
    """A text on its way to `num_tokens`. The first `num_kept` pieces are changed last."""

    pieces: list[str]
    num_tokens: int  # special ones included
    generator: np.random.Generator
    num_kept: int = 0


class TextMaker:
    """Raises `UsageError` for a tokenizer without words of one token."""

    def __init__(self, codec: Codec) -> None:
        self._codec = codec
        words = codec.words()
        starts = list(dict.fromkeys(word.strip() for word in words))
        starts = _preferred([start for start in starts if start], _START)
        lengths = self.lengths(starts)
        if not lengths:
            raise UsageError("The tokenizer has no words to make a text of.")
        shortest = min(lengths)
        self._starts = _pieces(starts, lengths, shortest)
        self.num_special_tokens = shortest - 1
        self.num_leading_tokens = self._num_leading()  # special ones in front of a text
        base = self._starts[0]
        words = [word for word in words if not word[-1].isspace()]
        words = _preferred(words, _WORD)
        alone = self.lengths([f"{base}{word}" for word in words])
        self._words = _pieces(words, alone, shortest + 1)
        if not len(self._words):
            raise UsageError("The tokenizer has no words that are one token inside a text.")

    @property
    def min_tokens(self) -> int:
        """The length of the shortest text."""
        return self.num_special_tokens + 1

    def draw(self, count: int, generator: np.random.Generator) -> list[str]:
        """Return `count` pieces to begin a text with, of one token each."""
        if count <= 0:
            return []
        start = str(self._starts[generator.integers(len(self._starts))])
        return [start, *self.more(count - 1, generator)]

    def more(self, count: int, generator: np.random.Generator) -> list[str]:
        """Return `count` pieces to go on with, of one token each."""
        drawn: list[str] = self._words[generator.integers(len(self._words), size=count)].tolist()
        return drawn

    def draft(
        self, num_tokens: int, generator: np.random.Generator, opening: Sequence[str] = ()
    ) -> Draft:
        """Begin a text of `num_tokens`; what is too short for any text becomes the shortest."""
        num_tokens = max(num_tokens, self.min_tokens)
        num_pieces = num_tokens - self.num_special_tokens
        pieces = list(opening[:num_pieces])
        rest = num_pieces - len(pieces)
        pieces += self.more(rest, generator) if pieces else self.draw(rest, generator)
        return Draft(pieces, num_tokens, generator, num_kept=min(len(opening), num_pieces))

    def finish(self, drafts: Sequence[Draft]) -> list[str]:
        """Return the texts, each of exactly its draft's length.

        Raises:
            UsageError: a length that the tokenizer's words don't add up to.
        """
        texts: list[str] = []
        for start in range(0, len(drafts), _BATCH):
            texts += self._finish(drafts[start : start + _BATCH])
        return texts

    def _finish(self, drafts: Sequence[Draft]) -> list[str]:
        finished = [""] * len(drafts)
        open_numbers = list(range(len(drafts)))
        for round_number in range(_MAX_ROUNDS):
            texts = ["".join(drafts[number].pieces) for number in open_numbers]
            lengths = self.lengths(texts)
            still_open = []
            for number, text, length in zip(open_numbers, texts, lengths, strict=True):
                if length == drafts[number].num_tokens:
                    finished[number] = text
                else:
                    self._mend(drafts[number], length, round_number)
                    still_open.append(number)
            open_numbers = still_open
            if not open_numbers:
                return finished
        wanted = drafts[open_numbers[0]].num_tokens
        raise UsageError(f"The tokenizer's words make no text of exactly {wanted} tokens.")

    def lengths(self, texts: Sequence[str]) -> list[int]:
        """Return the tokens of each text, special ones included."""
        return [len(ids) for ids in self._codec.encode(texts, add_special_tokens=True)]

    def _num_leading(self) -> int:
        two = [str(start) for start in self._starts[:2]]
        encoded = self._codec.encode(two, add_special_tokens=True)
        if len(encoded) < 2:
            return self.num_special_tokens
        return min(_num_equal(*encoded), self.num_special_tokens)

    def _mend(self, draft: Draft, num_tokens: int, round_number: int) -> None:
        excess = num_tokens - draft.num_tokens
        if excess > 0:
            tokens_per_piece = max(1.0, num_tokens / len(draft.pieces))
            self._drop(draft, max(1, int(excess / tokens_per_piece)))
        if round_number >= _CALM_ROUNDS:
            redrawn = int(draft.generator.integers(1, 9))
            before = len(draft.pieces)
            self._drop(draft, redrawn)
            draft.pieces += self.more(before - len(draft.pieces), draft.generator)
        if excess < 0:
            draft.pieces += self.more(-excess, draft.generator)

    def _drop(self, draft: Draft, count: int) -> None:
        """Drop pieces from the end; of those that are kept, as many as there must be in the end."""
        left = max(len(draft.pieces) - count, min(draft.num_kept, len(draft.pieces) - 1), 0)
        del draft.pieces[left:]
        if not draft.pieces:
            draft.pieces = self.draw(1, draft.generator)


def _num_equal(first: Sequence[int], second: Sequence[int]) -> int:
    """Return how many ids two texts have in common at their beginning."""
    pairs = zip(first, second, strict=False)
    return next((n for n, (one, other) in enumerate(pairs) if one != other), len(first))


def _preferred(words: list[str], form: re.Pattern[str]) -> list[str]:
    """Return the words of that form, or all that can be seen if those are few."""
    of_form = [word for word in words if form.fullmatch(word)]
    if len(of_form) >= _MIN_PIECES:
        return of_form
    return [word for word in words if word.isprintable() and not word.isspace()]


def _pieces(words: Sequence[str], lengths: Sequence[int], wanted: int) -> np.ndarray:
    found = [word for word, length in zip(words, lengths, strict=True) if length == wanted]
    return np.array(found, dtype=object)
