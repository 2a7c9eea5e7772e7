"""Find where a text that comes in pieces first holds one of the stop strings.

A match may begin in one piece and end in another, or inside a piece; the text is kept up to the
end of the stop string (spec/http-api.md section 17).
"""

from __future__ import annotations

from collections.abc import Sequence


class StopStringMatcher:
    """Empty stop strings match nothing."""

    def __init__(self, stop: Sequence[str]) -> None:
        self._stop = [text for text in stop if text]
        self._tail = ""  # as much of the text so far as a match could begin in
        self._tail_length = max((len(text) for text in self._stop), default=1) - 1

    def push(self, piece: str) -> int | None:
        """Return how many characters of `piece` to keep if a stop string ends in it, else None.

        The earliest end wins. Nothing may be pushed after a match.
        """
        if not self._stop or not piece:
            return None
        text = self._tail + piece
        ends = []
        for stop in self._stop:
            # A match that ends in the tail would have been found before.
            start = text.find(stop, max(0, len(self._tail) - len(stop) + 1))
            if start >= 0:
                ends.append(start + len(stop))
        if ends:
            return min(ends) - len(self._tail)
        self._tail = text[-self._tail_length :] if self._tail_length else ""
        return None
