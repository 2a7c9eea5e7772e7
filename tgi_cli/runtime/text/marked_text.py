"""Text in which a client's special tokens are told from the template's.

A chat template writes special tokens, and what it writes them around is a client's. To keep
`<|im_end|>` in a message from ending the message, every special token in a client's strings is
replaced, before rendering, by one character of a private-use plane: a character can't be cut in
two, has no case and isn't white space, so that whatever a template does to a string, the character
comes out whole or not at all. The tokenizer reads it as the text that it stands for.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import msgspec

_FIRST, _LAST = 0xF0000, 0x10FFFD  # planes 15 and 16
_MARKER = re.compile(f"[{chr(_FIRST)}-{chr(_LAST)}]")
_Tree = dict[str, "_Tree"]


class MarkedText(msgspec.Struct, frozen=True):
    """A text with markers, and the special token that each stands for."""

    marked: str
    originals: dict[str, str]

    @property
    def plain(self) -> str:
        return self.unmark(self.marked)

    def unmark(self, part: str) -> str:
        """Return a part of the marked text with the special tokens written out."""
        return part.translate({ord(char): token for char, token in self.originals.items()})


class Section(msgspec.Struct, frozen=True):
    """A stretch of text in which special tokens are either all meant or all text."""

    text: str
    is_literal: bool


def special_pattern(tokens: Iterable[str]) -> re.Pattern[str] | None:
    """Return what matches any of `tokens`, the longest first; None if there are none.

    A tree, since many tokens begin alike: trying each of hundreds at every `<|` of a long text
    would hold up the server.
    """
    tree: _Tree = {}
    for token in filter(None, tokens):
        node = tree
        for char in token:
            node = node.setdefault(char, {})
        node[""] = {}  # a token may end here
    return re.compile(_branches(tree)) if tree else None


def _branches(node: _Tree) -> str:
    options = [re.escape(char) + _branches(inner) for char, inner in node.items() if char]
    if not options:
        return ""
    return f"(?:{'|'.join(options)})" + ("?" if "" in node else "")


class Marker:
    """Marks the strings of one request. One made for no reason costs only a search."""

    def __init__(self, special: re.Pattern[str] | None, value: object) -> None:
        """Prepare to mark `value`, a JSON value whose strings are the client's."""
        self._special = special
        strings = list(_strings_in(value)) if special is not None else []
        found = {match for text in strings for match in (special.findall(text) if special else ())}
        taken = {char for text in strings for char in _MARKER.findall(text)} if found else set()
        self._characters: dict[str, str] = {}
        for token in sorted(found):
            character = _new_character(taken)
            taken.add(character)
            self._characters[token] = character

    @property
    def has_work(self) -> bool:
        return bool(self._characters)

    def mark(self, value: Any) -> Any:
        """Return the JSON value with the special tokens in its strings replaced."""
        if isinstance(value, str):
            assert self._special is not None
            return self._special.sub(lambda match: self._characters[match.group()], value)
        if isinstance(value, Mapping):
            return {self.mark(key): self.mark(inner) for key, inner in value.items()}
        if isinstance(value, (list, tuple)):
            return [self.mark(inner) for inner in value]
        return value

    def read(self, text: str) -> MarkedText:
        """Return a text that was made from marked strings."""
        return MarkedText(text, {char: token for token, char in self._characters.items()})


def sections(
    text: MarkedText,
    special: re.Pattern[str] | None,
    takes_left: frozenset[str],
    takes_right: frozenset[str],
) -> Iterator[Section]:
    """Cut a text at the special tokens that are meant, around the stretches that hold markers.

    Special tokens cut a text anyway before it is tokenized, so that the pieces' tokens joined are
    the tokens of the whole. White space goes with a neighbour that takes it: `takes_left` and
    `takes_right` are the tokens that swallow what is before and after them.
    """
    holds_marker = re.compile("[" + "".join(map(re.escape, text.originals)) + "]").search
    meant = ""  # since the last literal section
    previous = ""
    end = 0
    matches = special.finditer(text.marked) if special is not None else ()
    for match in (*matches, None):
        gap = text.marked[end : match.start() if match else len(text.marked)]
        if holds_marker(gap):
            core = gap
            if previous in takes_right:
                core = core.lstrip()
                meant += gap[: len(gap) - len(core)]
            trailing = ""
            if match and match.group() in takes_left:
                stripped = core.rstrip()
                core, trailing = stripped, core[len(stripped) :]
            if meant:
                yield Section(meant, is_literal=False)
            yield Section(text.unmark(core), is_literal=True)
            meant = trailing
        else:
            meant += gap
        if match:
            previous, end = match.group(), match.end()
            meant += previous
    if meant:
        yield Section(meant, is_literal=False)


def _strings_in(value: object) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for key, inner in value.items():
            yield key
            yield from _strings_in(inner)
    elif isinstance(value, (list, tuple)):
        for inner in value:
            yield from _strings_in(inner)


def _new_character(taken: set[str]) -> str:
    """Return a character that nobody can have guessed and nothing in the request holds."""
    while True:
        character = chr(_FIRST + secrets.randbelow(_LAST - _FIRST + 1))
        if character not in taken and ord(character) & 0xFFFF < 0xFFFE:  # not a non-character
            return character
