"""Inputs cut from a real text, `--text FILE`: any stretch of its words, of an exact length."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

from tgi_cli.errors import UsageError
from tgi_cli.runtime.bench.files import read_text
from tgi_cli.runtime.bench.synthetic import Draft, TextMaker

if TYPE_CHECKING:
    import numpy as np

_SAMPLE_WORDS = 2000


class TextFile:
    """The words of a text. Raises `UsageError` for a file without any."""

    def __init__(self, path: str, maker: TextMaker) -> None:
        self._words = re.findall(r"\s*\S+", read_text(path))
        if not self._words:
            raise UsageError(f"{path} holds no text")
        self._maker = maker
        sample = self._words[:_SAMPLE_WORDS]
        [length] = maker.lengths(["".join(sample)])
        self._tokens_per_word = max(length / len(sample), 0.1)

    def draft(
        self, num_tokens: int, generator: np.random.Generator, opening: Sequence[str] = ()
    ) -> Draft:
        """Begin a text of `num_tokens` with somewhat more words than it needs."""
        num_tokens = max(num_tokens, self._maker.min_tokens)
        kept = list(opening[: num_tokens - self._maker.num_special_tokens])
        wanted = num_tokens - self._maker.num_special_tokens - len(kept)
        count = math.ceil(wanted / self._tokens_per_word * 1.05) + 2 if wanted > 0 else 0
        words = self._stretch(int(generator.integers(len(self._words))), count)
        if words:
            words[0] = f" {words[0].lstrip()}" if kept else words[0].lstrip()
        return Draft([*kept, *words], num_tokens, generator, num_kept=len(kept))

    def _stretch(self, start: int, count: int) -> list[str]:
        """Return `count` words from `start` on; after the last comes the first."""
        found = self._words[start : start + count]
        while len(found) < count:
            again = self._words[: count - len(found)]
            found += [f" {again[0].lstrip()}", *again[1:]]
        return found
