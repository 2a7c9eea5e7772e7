"""Lists of modules in a checkpoint's configuration: which projections do they mean?

An entry is a run of dotted parts, such as `lm_head`, `layers.0` or a whole name; or, with `re:`
before it, a pattern of letters, `.`, `\\.`, `.*`, `^` and `$`, which is all that checkpoints use.
Matching takes time in proportion to both lengths: no regular expression of a checkpoint runs.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

MAX_PATTERNS = 256
_PATTERN = "re:"
_TOKEN = re.compile(r"\.\*|\.|\\\.|[\w-]")


class ModuleNames:
    """The modules that a list of names and patterns means."""

    def __init__(self, entries: Iterable[str]) -> None:
        entries = tuple(entries)
        self._runs = frozenset(entry for entry in entries if not entry.startswith(_PATTERN))
        self._patterns = [tokens_of(entry) for entry in entries if entry.startswith(_PATTERN)]

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


def tokens_of(entry: str) -> list[str]:
    """Split a pattern: letters as they are, "any" for one of any kind, "all" for any number.

    Raises:
        ValueError: it holds something else.
    """
    body = entry.removeprefix(_PATTERN).removeprefix("^")
    is_whole = body.endswith("$") and not body.endswith("\\$")
    body = body.removesuffix("$") if is_whole else body
    tokens = _TOKEN.findall(body)
    if "".join(tokens) != body:
        raise ValueError(f"the pattern {entry[:80]!r} has parts that aren't supported")
    names = {".*": "all", ".": "any", "\\.": "."}
    found = [names.get(token, token) for token in tokens]
    return found if is_whole else [*found, "all"]  # a pattern needs to match the beginning only


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
