"""The fewest tokens that a text can have, told from the vocabulary without tokenizing.

A prompt that is too long by far is refused for it before megabytes are counted. Only where every
byte of a text goes into a token: byte-level BPE without a normalizer that could drop some, and
without added tokens that take the spaces beside them.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import TYPE_CHECKING

import msgspec

if TYPE_CHECKING:
    from tokenizers import Tokenizer

# Byte-level vocabularies write each byte as one character; these are ASCII's blanks.
_WORD = re.compile("[^ĉĊċČčĠ]+")


class TokenBounds(msgspec.Struct, frozen=True):
    """The most that one token of a vocabulary can stand for. Blanks are ASCII's."""

    max_bytes: int
    max_blanks: int  # of a token of nothing but blanks
    max_blanks_beside: int  # of a token that holds something else too
    max_words: int  # runs of other bytes

    def fewest(self, text: str) -> int:
        """Return a number of tokens that `text` can't have less than.

        Of a text with w words and b blanks, at least w / `max_words` tokens hold words, and they
        take at most `max_blanks_beside` blanks each; the rest are blanks of their own.
        """
        raw = text.encode(errors="surrogatepass")
        words = raw.split()
        num_blanks = len(raw) - sum(map(len, words))
        with_words = _shares(len(words), self.max_words)
        if self.max_blanks_beside > self.max_blanks:
            by_kind = max(with_words, _shares(num_blanks, self.max_blanks_beside))
        else:
            left = max(0, num_blanks - with_words * self.max_blanks_beside)
            by_kind = with_words + _shares(left, self.max_blanks)
        return max(by_kind, _shares(len(raw), self.max_bytes))


def _shares(amount: int, most: int) -> int:
    return -(-amount // most)


def bounds_of(tokenizer_json: str, tokenizer: Tokenizer) -> TokenBounds | None:
    """Return the bounds, or None for a tokenizer one token of which may stand for anything."""
    fields = msgspec.json.decode(tokenizer_json)
    before = fields.get("pre_tokenizer") or {}
    steps = before.get("pretokenizers") or [before]
    added = tokenizer.get_added_tokens_decoder().values()
    if (
        fields.get("normalizer") is not None
        or not any(step.get("type") == "ByteLevel" for step in steps)
        or any(step.get("behavior") == "Removed" for step in steps)
        or any(token.lstrip or token.rstrip for token in added)
    ):
        return None
    vocabulary = tokenizer.get_vocab(with_added_tokens=False)
    return _measure([*vocabulary, *(_byte_level(token.content) for token in added)])


def _byte_level(text: str) -> str:
    """Return `text` with a character for each byte, blanks as the vocabulary has them."""
    blanks = {32: "Ġ"} | {byte: chr(256 + byte) for byte in (9, 10, 11, 12, 13)}
    return "".join(blanks.get(byte, "x") for byte in text.encode())


def _measure(tokens: Iterable[str]) -> TokenBounds:
    max_bytes = max_blanks = max_words = 1
    max_blanks_beside = 0
    for token in tokens:
        words = _WORD.findall(token)
        num_blanks = len(token) - sum(map(len, words))
        max_bytes = max(max_bytes, len(token))
        if words:
            max_words = max(max_words, len(words))
            max_blanks_beside = max(max_blanks_beside, num_blanks)
        else:
            max_blanks = max(max_blanks, num_blanks)
    return TokenBounds(max_bytes, max_blanks, max_blanks_beside, max_words)
