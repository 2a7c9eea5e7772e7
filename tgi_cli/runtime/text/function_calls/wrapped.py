"""TGI's form, which a grammar holds the model to: `{"function": {"_name": N, argument: value, …}}`.

The arguments are the inner object without `_name`. Read character by character, so that what is
given on is a JSON object when it is joined, wherever the tokens' borders are (section 11.4 of
spec/http-api.md).
"""

from __future__ import annotations

import re

import msgspec

_HEAD = re.compile(r'\s*\{\s*"function"\s*:\s*\{\s*"_name"\s*:\s*("(?:[^"\\]|\\.)*")', re.DOTALL)
_TOKEN = re.compile(r'"(?:[^"\\]|\\.)*"|\s+', re.DOTALL)


class WrappedCallReader:
    def __init__(self) -> None:
        self.held = ""  # the text so far, until the name is known
        self.name: str | None = None
        self.is_complete = False  # whether the arguments' last brace has come
        self._expects_comma = False  # between the name and the first argument
        self._depth = 1
        self._is_in_string = False
        self._is_escaped = False

    def push(self, text: str) -> str:
        """Return what `text` adds to the arguments; their first brace comes with the name."""
        if self.name is not None:
            return self._read(text)
        self.held += text
        head = _HEAD.match(self.held)
        if head is None:
            return ""
        self.name = msgspec.json.decode(head[1], type=str)
        self._expects_comma = True
        rest = self.held[head.end() :]
        self.held = ""
        return "{" + self._read(rest)

    def _read(self, text: str) -> str:
        fragment = ""
        for char in text:
            if self.is_complete:
                break  # the wrapper's brace
            if self._expects_comma and char != "}":
                self._expects_comma = char != ","
                continue
            fragment += char
            self._look_at(char)
        return fragment

    def _look_at(self, char: str) -> None:
        if self._is_escaped:
            self._is_escaped = False
        elif self._is_in_string:
            self._is_escaped = char == "\\"
            self._is_in_string = char != '"'
        elif char == '"':
            self._is_in_string = True
        elif char in "{[":
            self._depth += 1
        elif char in "}]":
            self._depth -= 1
            self.is_complete = self._depth == 0


def compact(arguments: str) -> str:
    """Return a JSON text without the white space between its tokens; numbers stay as they are."""
    return _TOKEN.sub(lambda match: match.group() if match.group()[0] == '"' else "", arguments)
