"""Leave the stop string out of a text that comes in pieces, as OpenAI does and TGI doesn't."""

from __future__ import annotations

from collections.abc import Sequence


class StopStringHider:
    """Holds back the end of a text while it could be the beginning of a stop string."""

    def __init__(self, stop: Sequence[str]) -> None:
        self._stop = [text for text in stop if text]
        self._held = ""

    def push(self, piece: str) -> str:
        """Return what can be shown now that `piece` has come."""
        text = self._held + piece
        num_held = max((_overlap(text, stop) for stop in self._stop), default=0)
        shown = len(text) - num_held
        self._held = text[shown:]
        return text[:shown]

    def push_last(self, piece: str, *, is_stopped: bool) -> str:
        """Return the rest, without the stop string that `piece` ends with if `is_stopped`."""
        text = self._held + piece
        if is_stopped:
            # Several may end here, one of them inside another.
            text = text.removesuffix(max(filter(text.endswith, self._stop), key=len, default=""))
        return text


def _overlap(text: str, stop: str) -> int:
    """Return how many characters at the end of `text` `stop` begins with, short of all of it."""
    longest = min(len(stop) - 1, len(text))
    return next((n for n in range(longest, 0, -1) if text.endswith(stop[:n])), 0)
