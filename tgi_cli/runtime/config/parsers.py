"""Turn the text of a flag or a variable into a value; `ValueError` says why it can't be."""

from __future__ import annotations

import ipaddress
from collections.abc import Callable

Parser = Callable[[str], object]

_TRUE = frozenset({"true", "1", "yes", "on"})
_FALSE = frozenset({"false", "0", "no", "off"})
_LOG_LEVELS = {"error": "error", "warn": "warn", "warning": "warn", "info": "info"}
_LOG_LEVELS |= {"debug": "debug", "trace": "debug"}


def text(value: str) -> str:
    """Return the value as it is."""
    return value


def count(value: str) -> int:
    """Read a whole number that isn't negative."""
    # int() alone would take "1_000", " 7" and digits of other scripts.
    if not (value.isascii() and value.isdigit()):
        raise ValueError(f"{value!r} is not a whole number, 0 or more")
    return int(value)


def port(value: str) -> int:
    number = count(value)
    if number > 65_535:
        raise ValueError(f"{number} is not a port, 0 to 65535")
    return number


def share(value: str) -> float:
    """Read a number above 0 and at most 1."""
    try:
        number = float(value)
    except ValueError:
        number = 0.0
    if not 0 < number <= 1:
        raise ValueError(f"{value!r} is not a share, above 0 and at most 1")
    return number


def switch(value: str) -> bool:
    lowered = value.lower()
    if lowered in _TRUE | _FALSE:
        return lowered in _TRUE
    raise ValueError(f"{value!r} is neither true nor false")


def choice(*values: str) -> Parser:
    """Return a parser that takes one of `values`, with hyphens or underscores."""

    def parse(value: str) -> str:
        hyphenated = value.replace("_", "-")
        if hyphenated not in values:
            raise ValueError(f"{value!r} is not one of {', '.join(values)}")
        return hyphenated

    return parse


def names(value: str) -> tuple[str, ...]:
    """Read a comma list; blanks around an entry don't count."""
    return tuple(entry.strip() for entry in value.split(",") if entry.strip())


def log_level(value: str) -> str:
    """Read a level; of a filter such as `info,router=debug`, the level without a target."""
    for entry in names(value):
        if entry.lower() in _LOG_LEVELS:
            return _LOG_LEVELS[entry.lower()]
    return "info"


def is_ip_address(value: str) -> bool:
    """Whether the text is an IPv4 or IPv6 address. Nothing is looked up."""
    try:
        ipaddress.ip_address(value)
    except ValueError:
        return False
    return True
