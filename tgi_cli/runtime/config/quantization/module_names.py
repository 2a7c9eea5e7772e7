"""Lists of modules in a checkpoint's configuration: which projections do they mean?

An entry is a run of dotted parts, such as `lm_head`, `layers.0` or a whole name; or, with `re:`
before it, a pattern of letters, `.`, `\\.`, `.*`, `(a|b)`, `^` and `$`, which is what checkpoints
use. Matching takes time in proportion to both lengths: no regular expression of a checkpoint runs.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

MAX_PATTERNS = 256
_PATTERN = "re:"
_TOKEN = re.compile(r"\.\*|\.|\\\.|[\w-]")
_CHOICE = re.compile(r"(?<!\\)\((?:\?:)?([^()]*)\)(?![*+?{])")
_MAX_CHOICES = 64  # in one pattern, multiplied out


class ModuleNames:
    """The modules that a list of names and patterns means."""

    def __init__(self, entries: Iterable[str]) -> None:
        entries = tuple(entries)
        self._runs = frozenset(entry for entry in entries if not entry.startswith(_PATTERN))
        self._patterns = [
            tokens
            for entry in entries
            if entry.startswith(_PATTERN)
            for tokens in patterns_of(entry)
        ]

    def __contains__(self, module: str) -> bool:
        parts = module.split(".")
        runs = (
            ".".join(parts[begin:end])
            for begin in range(len(parts))
            for end in range(begin + 1, len(parts) + 1)
        )
        return any(run in self._runs for run in runs) or any(
            _matches(tokens, module) for tokens in self._patterns
        )


def patterns_of(entry: str) -> list[list[str]]:
    """Split a pattern into tokens, once for each choice of what is between `(`, `|` and `)`.

    Tokens are letters as they are, "any" for one of any kind, "all" for any number.

    Raises:
        ValueError: it holds something else.
    """
    body = entry.removeprefix(_PATTERN).removeprefix("^")
    is_whole = body.endswith("$") and not body.endswith("\\$")
    body = body.removesuffix("$") if is_whole else body
    names = {".*": "all", ".": "any", "\\.": "."}
    patterns = []
    for choice in _choices(body, entry):
        tokens = _TOKEN.findall(choice)
        if "".join(tokens) != choice:
            raise ValueError(f"the pattern {entry[:80]!r} has parts that aren't supported")
        found = [names.get(token, token) for token in tokens]
        # A pattern needs to match the beginning only.
        patterns.append(found if is_whole else [*found, "all"])
    return patterns


def _choices(body: str, entry: str) -> list[str]:
    """Multiply `(a|b)` out: the bodies without parentheses that it stands for."""
    bodies = [body]
    while any(_CHOICE.search(each) for each in bodies):
        bodies = [
            each[: found.start()] + part + each[found.end() :] if found else each
            for each in bodies
            for found in [_CHOICE.search(each)]
            for part in (found[1].split("|") if found else [""])
        ]
        if len(bodies) > _MAX_CHOICES:
            raise ValueError(f"the pattern {entry[:80]!r} has over {_MAX_CHOICES} choices")
    return bodies


def _matches(tokens: list[str], text: str) -> bool:
    """Whether the whole text is what the tokens say: the set of places that are reachable."""
    places = {0}
    for token in tokens:
        if token == "all":
            places = set(range(min(places), len(text) + 1))
        else:
            places = {
                place + 1 for place in places if place < len(text) and token in ("any", text[place])
            }
        if not places:
            return False
    return len(text) in places
