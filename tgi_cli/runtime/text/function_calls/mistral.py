"""Mistral's forms: `[TOOL_CALLS][{"name": …, "arguments": …}, …]`, later `[TOOL_CALLS]name{…}`.

In the later form each call has a marker of its own, and `[CALL_ID]…` and `[ARGS]` may stand before
the arguments. Content comes before the first marker.
"""

from __future__ import annotations

import re

import msgspec

from tgi_cli.runtime.text.function_calls.call import (
    ObjectScanner,
    Piece,
    Pieces,
    num_held,
    read_call,
)

_MARKER, _ID, _ARGUMENTS = "[TOOL_CALLS]", "[CALL_ID]", "[ARGS]"
_HEAD = re.compile(r"\s*([\w.-]+)(?:\[CALL_ID\][\w-]*)?(?:\[ARGS\])?\s*(?={)")
_HEAD_SO_FAR = re.compile(r"\s*(?:[\w.-]+\s*(?:\[[\w\[\]\s-]*)?)?")


class MistralParser:
    markers = frozenset({_MARKER, _ID, _ARGUMENTS})

    def __init__(self, names: frozenset[str]) -> None:
        self._names = names
        self._pieces = Pieces()
        self._text = ""  # undecided; after a marker it begins with what follows the marker
        self._is_after_marker = False
        self._is_in_list = False
        self._scanner = ObjectScanner()

    def push(self, text: str) -> list[Piece]:
        self._text += text
        while self._advance():
            pass
        return self._pieces.take()

    def flush(self) -> list[Piece]:
        self._pieces.add(self._text)
        self._text, self._is_after_marker, self._is_in_list = "", False, False
        return self._pieces.take(is_last=True)

    def _advance(self) -> bool:
        """Decide on some of the text; return whether that made a difference."""
        if self._is_in_list:
            return self._read_item()
        if self._is_after_marker:
            return self._read_after_marker()
        return self._find_marker()

    def _find_marker(self) -> bool:
        start = self._text.find(_MARKER)
        end = len(self._text) - num_held(self._text, _MARKER) if start < 0 else start
        self._pieces.add(self._text[:end])
        self._text = self._text[end:]
        if start >= 0:
            self._text = self._text[len(_MARKER) :]
            self._is_after_marker = True
        return start >= 0

    def _read_after_marker(self) -> bool:
        rest = self._text.lstrip()
        if rest.startswith("["):
            self._text, self._is_in_list = rest[1:], True
            return True
        if rest.startswith("{"):
            return self._read_object(len(self._text) - len(rest), None)
        head = _HEAD.match(self._text)
        if head is not None:
            return self._read_object(head.end(), head[1])
        if _HEAD_SO_FAR.fullmatch(self._text):
            return False
        self._is_after_marker = False
        return True

    def _read_item(self) -> bool:
        rest = self._text.lstrip(" \t\r\n,")
        if rest.startswith("{"):
            return self._read_object(len(self._text) - len(rest), None)
        if not rest:
            return False
        self._text = rest.removeprefix("]")
        self._is_after_marker = self._is_in_list = False
        return True

    def _read_object(self, start: int, name: str | None) -> bool:
        """Read a call from its JSON, or its arguments if the name stood before them."""
        body = self._text[start:]
        end = self._scanner.find_end(body)
        if end is None and self._scanner.is_broken:
            self._is_after_marker = self._is_in_list = False
            self._scanner = ObjectScanner()
            return True
        if end is None:
            return False
        raw = body[:end] if name is None else _with_name(name, body[:end])
        self._pieces.add(read_call(raw, self._names) or self._text[: start + end])
        self._text = body[end:]
        self._scanner = ObjectScanner()
        self._is_after_marker = self._is_in_list
        return True


def _with_name(name: str, arguments: str) -> str:
    return f'{{"name": {msgspec.json.encode(name).decode()}, "arguments": {arguments}}}'
