"""Llama 3's form: the reply is `{"name": …, "parameters": …}`, perhaps after `<|python_tag|>`.

Several calls stand one after another, with `;`, a comma or nothing between. A reply that doesn't
begin so is content; `<|python_tag|>` before anything else is not shown, as no special token is.
"""

from __future__ import annotations

from tgi_cli.runtime.text.function_calls.call import (
    ObjectScanner,
    Piece,
    Pieces,
    num_held,
    read_call,
)

_TAG = "<|python_tag|>"
_BETWEEN = " \t\r\n;,"


class Llama3Parser:
    markers = frozenset({_TAG})

    def __init__(self, names: frozenset[str]) -> None:
        self._names = names
        self._pieces = Pieces()
        self._text = ""  # undecided
        self._skipped = ""  # what was passed over on the way to a call, should there be none
        self._expects_call = True
        self._scanner = ObjectScanner()

    def push(self, text: str) -> list[Piece]:
        self._text += text
        while self._advance():
            pass
        return self._pieces.take()

    def flush(self) -> list[Piece]:
        self._pieces.add(self._skipped + self._text)
        self._text = self._skipped = ""
        return self._pieces.take(is_last=True)

    def _advance(self) -> bool:
        """Decide on some of the text; return whether that made a difference."""
        return self._read_call() if self._expects_call else self._find_tag()

    def _find_tag(self) -> bool:
        start = self._text.find(_TAG)
        keep = num_held(self._text, _TAG) if start < 0 else len(self._text) - start
        self._pieces.add(self._text[: len(self._text) - keep])
        self._text = self._text[len(self._text) - keep :]
        if start >= 0:
            self._text = self._text[len(_TAG) :]
            self._expects_call = True
        return start >= 0

    def _read_call(self) -> bool:
        rest = self._text.lstrip(_BETWEEN)
        self._skipped += self._text[: len(self._text) - len(rest)]
        self._text = rest
        if not rest:
            return False
        if rest.startswith(_TAG):
            self._text = rest[len(_TAG) :]
            return True
        if _TAG.startswith(rest):
            return False
        if rest[0] != "{":
            return self._give_up(0)
        end = self._scanner.find_end(rest)
        if end is None:
            return self._scanner.is_broken and self._give_up(0)
        call = read_call(rest[:end], self._names)
        if call is None:
            return self._give_up(end)
        self._pieces.add(call)
        self._text, self._skipped = rest[end:], ""
        self._scanner = ObjectScanner()
        return True

    def _give_up(self, length: int) -> bool:
        """Take what was read for content, and look for a tag after it."""
        self._pieces.add(self._skipped + self._text[:length])
        self._text, self._skipped = self._text[length:], ""
        self._expects_call, self._scanner = False, ObjectScanner()
        return True
