"""Turn the text of a flag or a variable into a value; `ValueError` says why it can't be."""

from __future__ import annotations

import ipaddress
import math
import re
from collections.abc import Callable

Parser = Callable[[str], object]

_TRUE = frozenset({"true", "1", "yes", "on"})
_FALSE = frozenset({"false", "0", "no", "off"})
_LITERAL_PATH = re.compile(r"/[\w.~/-]*", re.ASCII)
_DURATION = re.compile(r"([0-9]+(?:\.[0-9]+)?)(us|ms|s|m|h|)", re.ASCII)
_SIZE = re.compile(r"([0-9]+(?:\.[0-9]+)?) ?(?:([KMGT])(i?)B?|B)?", re.ASCII | re.IGNORECASE)
_UNITS_S = {"us": 1e-6, "ms": 1e-3, "s": 1.0, "": 1.0, "m": 60.0, "h": 3600.0}
_NO_SIZE = re.compile(r"0+|-[0-9]+")
_MAX_COUNT = (1 << 63) - 1


def text(value: str) -> str:
    """Return the value as it is."""
    return value


def count(value: str) -> int:
    """Read a whole number that isn't negative."""
    # int() alone would take "1_000", " 7" and digits of other scripts, and refuse very many.
    if not (value.isascii() and value.isdigit()):
        raise ValueError(f"{shown(value)} is not a whole number, 0 or more")
    if len(value) > 32 or int(value) > _MAX_COUNT:
        raise ValueError(f"{shown(value)} is more than {_MAX_COUNT}")
    return int(value)


def batch_sizes(value: str) -> tuple[int, ...]:
    """Read a comma list of whole numbers, of which those above 0 count."""
    return tuple(count(entry) for entry in names(value) if not _NO_SIZE.fullmatch(entry))


def port(value: str) -> int:
    number = count(value)
    if number > 65_535:
        raise ValueError(f"{number} is not a port, 0 to 65535")
    return number


def number(value: str) -> float:
    """Read a finite number."""
    try:
        # float() alone would take "1_000" and " 7".
        parsed = math.nan if "_" in value or value.strip() != value else float(value)
    except ValueError:
        parsed = math.nan
    if not math.isfinite(parsed):
        raise ValueError(f"{shown(value)} is not a number")
    return parsed


def positive_number(value: str) -> float:
    """Read a number above 0."""
    parsed = number(value)
    if parsed <= 0:
        raise ValueError(f"{shown(value)} is not above 0")
    return parsed


def share(value: str) -> float:
    """Read a number above 0 and at most 1."""
    parsed = number(value)
    if not 0 < parsed <= 1:
        raise ValueError(f"{shown(value)} is not a share, above 0 and at most 1")
    return parsed


def part(value: str) -> float:
    """Read a number above 0 and below 1."""
    parsed = number(value)
    if not 0 < parsed < 1:
        raise ValueError(f"{shown(value)} is not between 0 and 1")
    return parsed


def ratio(value: str) -> float:
    """Read a number that isn't negative."""
    parsed = number(value)
    if parsed < 0:
        raise ValueError(f"{shown(value)} is negative")
    return parsed


def percentage(value: str) -> float:
    """Read `5%`, or `0.05`, as a share from 0 to 1."""
    parsed = number(value[:-1]) / 100 if value.endswith("%") else number(value)
    if not 0 <= parsed <= 1:
        raise ValueError(f"{shown(value)} is not a share from 0% to 100%")
    return parsed


def duration(value: str) -> float:
    """Read `500ms`, `2s`, `1.5m` or `1h` in seconds; a bare number counts seconds."""
    found = _DURATION.fullmatch(value)
    if found is None:
        raise ValueError(f"{shown(value)} is not a time such as 500ms, 10s or 2m")
    parsed = number(found[1]) * _UNITS_S[found[2]]
    if not math.isfinite(parsed):
        raise ValueError(f"{shown(value)} is too long")
    return parsed


def num_bytes(value: str) -> int:
    """Read `5GB`, `512MiB` or a bare number of bytes, above 0."""
    found = _SIZE.fullmatch(value)
    if found is None:
        raise ValueError(f"{shown(value)} is not a size such as 5GB or 512MiB")
    power = 0 if found[2] is None else "KMGT".index(found[2].upper()) + 1
    parsed = number(found[1]) * (1024.0 if found[3] else 1000.0) ** power
    if not 1 <= parsed <= _MAX_COUNT:
        raise ValueError(f"{shown(value)} is not a size from 1 byte to {_MAX_COUNT}")
    return int(parsed)


def scale(value: str) -> float:
    """Read a factor by which lengths may be stretched."""
    parsed = number(value)
    if not 1e-3 <= parsed <= 1e4:
        raise ValueError(f"{shown(value)} is not a factor from 0.001 to 10000")
    return parsed


def switch(value: str) -> bool:
    lowered = value.lower()
    if lowered in _TRUE | _FALSE:
        return lowered in _TRUE
    raise ValueError(f"{shown(value)} is neither true nor false")


def choice(*values: str) -> Parser:
    """Return a parser that takes one of `values`, with hyphens or underscores."""
    by_hyphens = {value.replace("_", "-"): value for value in values}

    def parse(value: str) -> str:
        found = by_hyphens.get(value.replace("_", "-"))
        if found is None:
            raise ValueError(f"{shown(value)} is not one of {', '.join(values)}")
        return found

    return parse


def route(value: str) -> str:
    """Read the path of a route, which is taken as it is: no pattern, no query."""
    if not _LITERAL_PATH.fullmatch(value):
        raise ValueError(f"{shown(value)} is not a path such as /predict")
    return value


def log_format(value: str) -> str:
    """Read a form of the log; what isn't json is text, under whatever name."""
    return "json" if value.lower() == "json" else "text"


def log_filter(value: str) -> str:
    """Read a level or a filter of the log; `logs.parse_filter` says what is in it."""
    return value.lower()


def names(value: str) -> tuple[str, ...]:
    """Read a comma list; blanks around an entry don't count."""
    return tuple(entry.strip() for entry in value.split(",") if entry.strip())


def is_ip_address(value: str) -> bool:
    """Whether the text is an IPv4 or IPv6 address. Nothing is looked up."""
    try:
        ipaddress.ip_address(value)
    except ValueError:
        return False
    return True


def shown(value: str) -> str:
    """Return a value for an error, cut if it is long."""
    return repr(value if len(value) <= 80 else f"{value[:80]}…")
