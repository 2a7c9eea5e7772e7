"""What all parsers of function calls give and are given, and the parts that they share.

A parser gets the text piece by piece and gives content and whole calls. The pieces may be cut
anywhere: the same text gives the same content and calls. What looks like a call and isn't one, for
it isn't valid or names no function of the request, is content.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, Protocol

import msgspec

_IN_STRING = re.compile(r'[\\"]')
_OUTSIDE = re.compile(r'["{}\[\]<]')


class FunctionCall(msgspec.Struct, frozen=True):
    name: str
    arguments: str  # a JSON object, compact


Piece = str | FunctionCall
"""Content, or a call in its place between contents."""


class CallParser(Protocol):
    markers: frozenset[str]  # special tokens that it needs to see; others aren't text

    def push(self, text: str) -> list[Piece]:
        """Return what is decided by now."""

    def flush(self) -> list[Piece]:
        """Return the rest, when no text will follow."""


MakeParser = Callable[[frozenset[str]], CallParser]
"""Makes a parser for calls of the functions with these names."""


class ObjectScanner:
    """Finds where a JSON object ends, without reading anything twice."""

    def __init__(self) -> None:
        self._depth = 0
        self._is_in_string = False
        self._is_escaped = False
        self._position = 0  # up to where the text has been read
        self.is_broken = False  # by a "<", with which tags begin and which no JSON holds

    def find_end(self, text: str) -> int | None:
        """Return the index after the object that `text` begins with, or None if it goes on.

        `text` may only grow from call to call.
        """
        while self._position < len(text) and not self.is_broken:
            if self._is_escaped:
                self._is_escaped = False
                self._position += 1
                continue
            match = (_IN_STRING if self._is_in_string else _OUTSIDE).search(text, self._position)
            if match is None:
                self._position = len(text)
                return None
            self._position = match.end()
            char = match.group()
            if char == "\\":
                self._is_escaped = True
            elif char == '"':
                self._is_in_string = not self._is_in_string
            elif char == "<":
                self.is_broken = True
                return None
            else:
                self._depth += 1 if char in "{[" else -1
                if self._depth == 0:
                    return self._position
        return None


def read_call(text: str, names: frozenset[str]) -> FunctionCall | None:
    """Return the call that a JSON object says, or None if it says none."""
    try:
        value = msgspec.json.decode(text)
    except (msgspec.DecodeError, RecursionError):
        return None
    if not isinstance(value, dict):
        return None
    arguments: Any = value.get("arguments", value.get("parameters", {}))
    if isinstance(arguments, str):  # some models encode them twice
        arguments = _decode_object(arguments)
    name = value.get("name")
    if not isinstance(name, str) or name not in names or not isinstance(arguments, dict):
        return None
    return FunctionCall(name, msgspec.json.encode(arguments).decode())


def _decode_object(text: str) -> object:
    try:
        return msgspec.json.decode(text)
    except (msgspec.DecodeError, RecursionError):
        return None


def num_held(text: str, marker: str) -> int:
    """Return how many characters at the end of `text` may be the beginning of `marker`."""
    longest = min(len(text), len(marker) - 1)
    return next((n for n in range(longest, 0, -1) if text.endswith(marker[:n])), 0)


class Pieces:
    """Content and calls on their way out. White space beside a call is the form's, not content."""

    def __init__(self) -> None:
        self._ready: list[Piece] = []
        self._space = ""  # at the end of the content so far
        self._is_after_call = False

    def add(self, piece: Piece) -> None:
        if isinstance(piece, FunctionCall):
            self._space = ""
            self._is_after_call = True
            self._ready.append(piece)
            return
        text = self._space + piece
        if self._is_after_call:
            text = text.lstrip()
        content = text.rstrip()
        self._space = text[len(content) :]
        if content:
            self._is_after_call = False
            self._ready.append(content)

    def take(self, *, is_last: bool = False) -> list[Piece]:
        if is_last and self._space:
            self._ready.append(self._space)
            self._space = ""
        ready, self._ready = self._ready, []
        return ready
