"""Hermes' form, which Qwen and others share: `<tool_call>{"name": …, "arguments": …}</tool_call>`.

Content may stand before, between and after; each call has tags of its own. A missing end tag is
forgiven.
"""

from __future__ import annotations

from tgi_cli.runtime.text.function_calls.call import (
    ObjectScanner,
    Piece,
    Pieces,
    num_held,
    read_call,
)

_OPEN, _CLOSE = "<tool_call>", "</tool_call>"


class HermesParser:
    markers = frozenset({_OPEN, _CLOSE})

    def __init__(self, names: frozenset[str]) -> None:
        self._names = names
        self._pieces = Pieces()
        self._text = ""  # undecided
        self._call: ObjectScanner | None = None  # inside of the tags
        self._expects_close = False  # after a call

    def push(self, text: str) -> list[Piece]:
        self._text += text
        while self._advance():
            pass
        return self._pieces.take()

    def flush(self) -> list[Piece]:
        if not self._expects_close:  # else it is a part of the end tag
            self._pieces.add(self._text)
        self._text, self._call, self._expects_close = "", None, False
        return self._pieces.take(is_last=True)

    def _advance(self) -> bool:
        """Decide on some of the text; return whether that made a difference."""
        if self._expects_close:
            return self._skip_close()
        if self._call is None:
            return self._find_open()
        return self._read_call(self._call)

    def _find_open(self) -> bool:
        start = self._text.find(_OPEN)
        if start < 0:
            keep = num_held(self._text, _OPEN)
            self._give(len(self._text) - keep)
            return False
        self._give(start)
        self._call = ObjectScanner()
        return True

    def _read_call(self, scanner: ObjectScanner) -> bool:
        """Read the object after the open tag, which begins the text."""
        body = self._text[len(_OPEN) :].lstrip()
        if not body:
            return False
        start = len(self._text) - len(body)
        if body[0] != "{":
            return self._give_up()
        end = scanner.find_end(body)
        if end is None:
            return scanner.is_broken and self._give_up()
        call = read_call(body[:end], self._names)
        if call is None:
            return self._give_up()
        self._pieces.add(call)
        self._text = self._text[start + end :]
        self._call, self._expects_close = None, True
        return True

    def _skip_close(self) -> bool:
        rest = self._text.lstrip()
        if rest.startswith(_CLOSE):
            self._text = rest[len(_CLOSE) :]
        elif _CLOSE.startswith(rest):
            return False
        self._expects_close = False
        return True

    def _give_up(self) -> bool:
        """Take the open tag for content, and look for another after it."""
        self._give(len(_OPEN))
        self._call = None
        return True

    def _give(self, length: int) -> None:
        self._pieces.add(self._text[:length])
        self._text = self._text[length:]
