"""What the bench needs of a tokenizer: ids of texts, and words to make texts of.

Spec: bench.md sections 4 and 7.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

from tgi_cli.runtime.text.tokenizer import Tokenizer

if TYPE_CHECKING:
    import numpy as np

_MAX_CANDIDATES = 8192


class Codec(Protocol):
    """A tokenizer, here or behind a server's route."""

    def encode(self, texts: Sequence[str], *, add_special_tokens: bool) -> list[list[int]]:
        """Return the ids of each text; with special tokens, as the server adds them to a prompt."""
        ...

    def words(self) -> list[str]:
        """Return texts of which many are one token each, their leading space included."""
        ...


class WordSource(Protocol):
    def draw(self, count: int, generator: np.random.Generator) -> list[str]:
        """Return `count` pieces to begin a text with."""
        ...


class LocalCodec:
    """A model's own tokenizer."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer

    def encode(self, texts: Sequence[str], *, add_special_tokens: bool) -> list[list[int]]:
        return self._tokenizer.encode_batch(texts, add_special_tokens=add_special_tokens)

    def words(self) -> list[str]:
        """Return the texts of tokens spread over the vocabulary, special and broken ones left out.

        A token that is part of a character has no text of its own.
        """
        size = self._tokenizer.vocab_size
        step = max(1, size // _MAX_CANDIDATES)
        found = (
            self._tokenizer.token_text(token_id)
            for token_id in range(0, size, step)
            if not self._tokenizer.is_special(token_id)
        )
        return [text for text in dict.fromkeys(found) if text and "\ufffd" not in text]


# Where no vocabulary is at hand: short words that nearly every tokenizer has as one token.
_COMMON_WORDS = """
a about after again all also an and any are as at back be because been before between both but by
can could day did do down each even first for from get give go good great had has have he her here
high him his how if in into is it its just know last life like little long look made make man many
may me men might more most much must my never new no not now number of off old on one only or other
our out over own part people place point right same say see she should side small so some state
still such take than that the their them then there these they thing think this those three time to
two under up us use very want was water way we well were what when where which while who will with
word work world would write year you your
"""


def common_words() -> list[str]:
    """Return words for a tokenizer whose vocabulary can't be listed."""
    return [f" {word}" for word in _COMMON_WORDS.split()]


class CommonWords:
    """Begins inputs where there is no tokenizer: words, of about a token each."""

    def draw(self, count: int, generator: np.random.Generator) -> list[str]:
        words = common_words()
        drawn = [words[place] for place in generator.integers(len(words), size=count)]
        return [drawn[0].strip(), *drawn[1:]] if drawn else []
