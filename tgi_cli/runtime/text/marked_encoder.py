"""Token ids of a text in which some special tokens are a client's, and so are text.

The pieces in which they stand are read by a twin of the tokenizer that knows no special tokens;
all else is read as ever. Both give what the whole text would have given: `marked_text.sections`
cuts only where the tokenizer cuts.
"""

from __future__ import annotations

import secrets
import threading

from tgi_cli.runtime.text.marked_text import MarkedText, Section, sections, special_pattern
from tgi_cli.runtime.text.tokenizer import Tokenizer, TokenSpan


class MarkedTextEncoder:
    """Thread-safe. The twin takes as much memory as the tokenizer, so it is made when needed."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        added = tokenizer.special_tokens
        self._special = special_pattern(
            token.content for token in added if not token.single_word
        )  # one that counts only as a whole word can't be told from its look
        self._takes_left = frozenset(token.content for token in added if token.lstrip)
        self._takes_right = frozenset(token.content for token in added if token.rstrip)
        # Some tokenizers put a space before a text's first word. A token before it keeps that off
        # a piece that isn't the first; nobody can write this one.
        self._guard = f"\U000ffffd{secrets.token_hex(8)}\U000ffffd"
        self._twin: Tokenizer | None = None
        self._lock = threading.Lock()

    def encode(self, text: MarkedText) -> list[int]:
        return [span.id for span in self.encode_with_offsets(text)]

    def encode_with_offsets(self, text: MarkedText) -> list[TokenSpan]:
        """Return the tokens of `text.plain` with their byte offsets in it; none are added."""
        spans: list[TokenSpan] = []
        offset = 0  # bytes
        for section in sections(text, self._special, self._takes_left, self._takes_right):
            spans += [
                TokenSpan(span.id, span.text, span.start + offset, span.stop + offset)
                if span.text
                else span
                for span in self._encode(section, is_first=not spans)
            ]
            offset += len(section.text.encode())
        return spans

    def _encode(self, section: Section, *, is_first: bool) -> list[TokenSpan]:
        if not section.is_literal:
            return self._tokenizer.encode_with_offsets(section.text, add_special_tokens=False)
        twin = self._literal_twin()
        if is_first:
            return twin.encode_with_offsets(section.text, add_special_tokens=False)
        _, *spans = twin.encode_with_offsets(self._guard + section.text, add_special_tokens=False)
        shift = len(self._guard.encode())
        return [
            TokenSpan(s.id, s.text, max(0, s.start - shift), max(0, s.stop - shift)) for s in spans
        ]

    def _literal_twin(self) -> Tokenizer:
        with self._lock:
            if self._twin is None:
                self._twin = self._tokenizer.literal_twin(self._guard)
            return self._twin
