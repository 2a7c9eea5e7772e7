"""The server's own tokenizer behind its `/tokenize`, for when no other is at hand."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from tgi_cli.runtime.bench.codec import common_words
from tgi_cli.runtime.bench.probe import Probe

_AT_ONCE = 64


class RemoteCodec:
    """Used from threads: each call waits for the loop in which the probe lives."""

    def __init__(self, probe: Probe, loop: asyncio.AbstractEventLoop) -> None:
        self._probe = probe
        self._loop = loop

    def encode(self, texts: Sequence[str], *, add_special_tokens: bool) -> list[list[int]]:
        """Return the ids of each text. Raises `UnreachableError`.

        The server decides about special tokens: what it adds, it adds to prompts as well.
        """
        found: list[list[int]] = []
        for start in range(0, len(texts), _AT_ONCE):
            asked = self._probe.tokenize_all(texts[start : start + _AT_ONCE])
            found += asyncio.run_coroutine_threadsafe(asked, self._loop).result()
        return found

    def words(self) -> list[str]:
        return common_words()
