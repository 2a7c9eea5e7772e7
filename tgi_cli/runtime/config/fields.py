"""Read single values out of a foreign dictionary, each with its type and bounds.

Used by the parsers of `config.json` and of GGUF metadata: what they don't ask for is never looked
at.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

from tgi_cli.errors import CorruptModelError


class Fields:
    """A dictionary and what to call it in an error."""

    def __init__(self, raw: Mapping[str, Any], source: str) -> None:
        self._raw = raw
        self.source = source

    def __iter__(self) -> Iterator[str]:
        return iter(self._raw)

    def get(self, key: str) -> Any:
        """Return the raw value; a null counts as absent."""
        return self._raw.get(key)

    def section(self, key: str) -> Fields | None:
        value = self.get(key)
        if value is None:
            return None
        if not isinstance(value, Mapping):
            raise self.wrong(key, value, "an object")
        return Fields(value, f"{self.source}: {key}")

    def size(self, key: str, *, limit: int, default: int | None = None) -> int:
        """Return an integer from 1 to `limit`."""
        value = self.get(key)
        if value is None and default is not None:
            return default
        if type(value) is not int or not 1 <= value <= limit:
            raise self.wrong(key, value, f"an integer from 1 to {limit}")
        return value

    def number(self, key: str, *, low: float, high: float, default: float | None = None) -> float:
        """Return a finite number from `low` to `high`."""
        value = self.get(key)
        if value is None and default is not None:
            return default
        is_number = type(value) in (int, float) and math.isfinite(value)
        if not is_number or not low <= value <= high:
            raise self.wrong(key, value, f"a number from {low:g} to {high:g}")
        return float(value)

    def flag(self, key: str, *, default: bool) -> bool:
        value = self.get(key)
        if value is None:
            return default
        if type(value) is not bool:
            raise self.wrong(key, value, "true or false")
        return value

    def text(self, key: str) -> str | None:
        value = self.get(key)
        if value is not None and not isinstance(value, str):
            raise self.wrong(key, value, "a string")
        return value

    def wrong(self, key: str, value: object, expected: str) -> CorruptModelError:
        found = "missing" if value is None else f"{str(value)[:80]!r}"
        return CorruptModelError(f"{self.source}: {key!r} must be {expected}; it is {found}.")
