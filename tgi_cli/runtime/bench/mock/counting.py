"""Count input tokens, by a tokenizer's file or by words, and remember prefixes as a cache does."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from pathlib import Path

from tgi_cli.errors import ModelNotFoundError
from tgi_cli.runtime.config.model_config import TextAssets
from tgi_cli.runtime.text.tokenizer import Tokenizer, TokenSpan

_PREFIX_BLOCK = 16  # tokens


class Counter:
    """Without a tokenizer a word is a token, and its checksum stands for its id."""

    def __init__(self, tokenizer_file: Path | None) -> None:
        self._tokenizer: Tokenizer | None = None
        if tokenizer_file is not None:
            try:
                text = tokenizer_file.read_text(encoding="utf-8")
            except OSError as exc:
                raise ModelNotFoundError(f"{tokenizer_file} can't be read.") from exc
            self._tokenizer = Tokenizer(TextAssets(tokenizer_json=text))

    def units(self, text: str, *, num_extra: int = 0) -> Sequence[int]:
        """Return an id per token, after `num_extra` that a template adds."""
        if self._tokenizer is not None:
            ids = self._tokenizer.encode(text, add_special_tokens=True)
        else:
            ids = [zlib.crc32(word.encode()) for word in text.split()]
        return [*range(num_extra), *ids] if num_extra else ids

    def spans(self, text: str, *, add_special_tokens: bool) -> list[TokenSpan]:
        """Return the tokens of `text` with their byte offsets."""
        if self._tokenizer is not None:
            return self._tokenizer.encode_with_offsets(text, add_special_tokens=add_special_tokens)
        spans = []
        raw, at = text.encode(), 0
        for word in text.split():
            start = raw.index(word.encode(), at)
            at = start + len(word.encode())
            spans.append(TokenSpan(zlib.crc32(word.encode()), word, start, at))
        return spans


class PrefixMemory:
    """Blocks of inputs that were seen before; it forgets nothing."""

    def __init__(self) -> None:
        self._seen: set[int] = set()
        self.num_hit_tokens = 0
        self.num_query_tokens = 0

    def look_up(self, units: Sequence[int]) -> int:
        """Return how many first tokens of an input were seen before, and remember all of it."""
        num_cached, known, key = 0, True, 0
        for start in range(0, len(units) - _PREFIX_BLOCK + 1, _PREFIX_BLOCK):
            key = hash((key, *units[start : start + _PREFIX_BLOCK]))
            known = known and key in self._seen
            num_cached += _PREFIX_BLOCK if known else 0
            self._seen.add(key)
        self.num_hit_tokens += num_cached
        self.num_query_tokens += len(units)
        return num_cached
