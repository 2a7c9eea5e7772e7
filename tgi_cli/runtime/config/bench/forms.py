"""Read the values of `tgi bench`'s options; `str()` of each form writes it as it is given.

Parsers raise `ValueError` with the reason. Times are seconds. Spec: bench.md sections 6, 7 and 14.
"""

from __future__ import annotations

import json
import math
import re
from dataclasses import dataclass
from typing import Any, Literal, TypeVar, get_args

from tgi_cli.runtime.config import parsers
from tgi_cli.runtime.config.bench.length_forms import token_count
from tgi_cli.runtime.config.parsers import shown

_T = TypeVar("_T")
RampKind = Literal["rate", "concurrency"]
GoodputLimit = Literal["ttft", "tpot", "itl_max", "e2e"]

MAX_AT_ONCE = 100_000
_UNITS_S = {"ms": 1e-3, "s": 1.0, "": 1.0, "m": 60.0, "h": 3600.0}
_DURATION = re.compile(r"([0-9]+(?:\.[0-9]+)?)(ms|s|m|h|)")
_RAMP = re.compile(r"([^./]+(?:\.[0-9]+)?)\.\.([^/]+)/(.+)")
_HEADER_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_URL = re.compile(
    r"(?:(https?)://)?((?:\[[0-9a-fA-F:.]+\]|[^\s/?#@:\[\]]+)(?::[0-9]{1,5})?)(/[^\s?#]*)?"
)
_PREFIX = re.compile(r"([0-9]+)(?:x([0-9]+))?")


def duration(value: str) -> float:
    """Read a time such as 500ms, 20s, 2m or 1h; a bare number is seconds."""
    match = _DURATION.fullmatch(value)
    seconds = float(match[1]) * _UNITS_S[match[2]] if match else math.inf
    if not math.isfinite(seconds):
        raise ValueError(f"{shown(value)} is not a time such as 500ms, 20s or 2m")
    return seconds


def positive_duration(value: str) -> float:
    seconds = duration(value)
    if seconds <= 0:
        raise ValueError(f"{shown(value)} is not a time above 0")
    return seconds


def percentage(value: str) -> float:
    """Read a share such as 5%; the percent sign is needed."""
    if not value.endswith("%"):
        raise ValueError(f"{shown(value)} is not a percentage such as 5%")
    share = parsers.number(value[:-1]) / 100
    if not 0 <= share <= 1:
        raise ValueError(f"{shown(value)} is not from 0% to 100%")
    return share


def positive_percentage(value: str) -> float:
    share = percentage(value)
    if share == 0:
        raise ValueError(f"{shown(value)} is not above 0%")
    return share


def positive_count(value: str) -> int:
    number = parsers.count(value)
    if not 1 <= number <= 10**9:
        raise ValueError(f"{shown(value)} is not a whole number, 1 or more")
    return number


def counts(value: str) -> tuple[int, ...]:
    """Read a comma list of whole numbers, 1 or more: one stage each."""
    found = tuple(positive_count(entry) for entry in _entries(value))
    if max(found) > MAX_AT_ONCE:
        raise ValueError(f"{max(found)} requests at once are more than {MAX_AT_ONCE}")
    return _once_each(value, found)


def rates(value: str) -> tuple[float, ...]:
    """Read a comma list of rates, in requests per second."""
    return _once_each(value, tuple(parsers.positive_number(entry) for entry in _entries(value)))


@dataclass(frozen=True, slots=True)
class Ramp:
    """A load that grows or falls in a straight line, over seconds."""

    start: float
    stop: float
    duration_s: float

    def __str__(self) -> str:
        return f"{self.start:.12g}..{self.stop:.12g}/{self.duration_s:.12g}s"


def ramps(value: str) -> tuple[Ramp, ...]:
    """Read `FROM..TO/TIME`, such as 1..50/120s; or a comma list of them."""
    return _once_each(value, tuple(_ramp(entry) for entry in _entries(value)))


def _ramp(value: str) -> Ramp:
    match = _RAMP.fullmatch(value)
    if match is None:
        raise ValueError(f"{shown(value)} is not a ramp such as 1..50/120s")
    start, stop = parsers.ratio(match[1]), parsers.ratio(match[2])
    if start == stop == 0:
        raise ValueError(f"{shown(value)} puts no load on at all")
    return Ramp(start, stop, positive_duration(match[3]))


@dataclass(frozen=True, slots=True)
class SharedPrefix:
    """Beginnings that inputs have in common."""

    num_tokens: int
    num_groups: int = 1
    zipf: float = 0.0  # weight of group k: 1 / (k + 1) ** zipf; 0: all alike

    def __str__(self) -> str:
        zipf = f",zipf={self.zipf:.12g}" if self.zipf else ""
        return f"{self.num_tokens}x{self.num_groups}{zipf}"


def shared_prefix(value: str) -> SharedPrefix:
    """Read `TOKENS[xGROUPS][,zipf=S]`."""
    size, comma, rest = value.partition(",")
    match = _PREFIX.fullmatch(size)
    if match is None or (comma and not rest.startswith("zipf=")):
        raise ValueError(f"{shown(value)} is not a prefix such as 1024x8,zipf=1.1")
    groups = positive_count(match[2]) if match[2] else 1
    if groups > MAX_AT_ONCE:
        raise ValueError(f"{groups} shared prefixes are more than {MAX_AT_ONCE}")
    zipf = parsers.ratio(rest.removeprefix("zipf=")) if comma else 0.0
    return SharedPrefix(token_count(match[1]), groups, zipf)


@dataclass(frozen=True, slots=True)
class Cancel:
    """Hang up on a share of the requests after a delay from their sending."""

    share: float
    after_s: float

    def __str__(self) -> str:
        return f"{self.share * 100:.12g}%@{self.after_s:.12g}s"


def cancel(value: str) -> Cancel:
    """Read `SHARE@TIME`, such as 5%@2s."""
    share, _, after = value.partition("@")
    return Cancel(positive_percentage(share), duration(after))


@dataclass(frozen=True, slots=True)
class Amount:
    """A number of requests, or something measured otherwise; one of the two is set."""

    requests: int | None = None
    other: float | None = None  # seconds of a warm-up, share of errors

    @property
    def is_zero(self) -> bool:
        return not self.requests and not self.other


@dataclass(frozen=True, slots=True)
class Warmup(Amount):
    def __str__(self) -> str:
        return f"{self.other:.12g}s" if self.other is not None else str(self.requests)


@dataclass(frozen=True, slots=True)
class MaxErrors(Amount):
    def __str__(self) -> str:
        return f"{self.other * 100:.12g}%" if self.other is not None else str(self.requests)


def warmup(value: str) -> Warmup:
    """Read a time with its unit, or a bare number of requests."""
    if value.isascii() and value.isdigit():
        return Warmup(requests=parsers.count(value))
    return Warmup(other=duration(value))


def max_errors(value: str) -> MaxErrors:
    """Read a number of failures, or a share of the requests such as 10%."""
    if value.endswith("%"):
        return MaxErrors(other=percentage(value))
    return MaxErrors(requests=parsers.count(value))


def goodput(value: str) -> tuple[tuple[GoodputLimit, float], ...]:
    """Read limits such as ttft=500ms,tpot=50ms, in seconds."""
    found: dict[GoodputLimit, float] = {}
    for entry in _entries(value):
        given, sign, limit = entry.partition("=")
        name = next((name for name in get_args(GoodputLimit) if name == given), None)
        if name is None or not sign or name in found:
            names = ", ".join(get_args(GoodputLimit))
            raise ValueError(f"{shown(entry)} is not a limit such as ttft=500ms; names: {names}")
        found[name] = positive_duration(limit)
    return tuple(found.items())


def written_goodput(value: object) -> str:
    assert isinstance(value, tuple), value
    return ",".join(f"{name}={limit:.12g}s" for name, limit in value)


def header(value: str) -> tuple[str, str]:
    """Read `NAME:VALUE`."""
    name, colon, content = value.partition(":")
    content = content.strip(" \t")
    if not colon or not _HEADER_NAME.fullmatch(name):
        raise ValueError("a header is written NAME:VALUE")  # the value may be a secret
    if not content.isprintable() or not content.isascii():
        raise ValueError(f"the header {name} has a value that can't be sent")
    return name, content


def meta(value: str) -> tuple[str, str]:
    """Read `KEY=VALUE`."""
    key, sign, content = value.partition("=")
    if not sign or not key.strip():
        raise ValueError(f"{shown(value)} is not KEY=VALUE")
    return key.strip(), content


def written_meta(value: object) -> str:
    assert isinstance(value, tuple), value
    return "=".join(value)


def body(value: str) -> dict[str, Any]:
    """Read a JSON object, whose fields go into every request."""
    try:
        found = json.loads(value)
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise ValueError(f"{shown(value)} is not a JSON object")
    return found


def workers(value: str) -> int | None:
    """Read a number of processes, or auto."""
    if value == "auto":
        return None
    number = positive_count(value)
    if number > 1024:
        raise ValueError(f"{number} client processes are more than 1024")
    return number


def seed(value: str) -> int:
    number = parsers.count(value)
    if number >= 1 << 63:
        raise ValueError(f"{shown(value)} is not below 2**63")
    return number


def base_url(value: str) -> str:
    """Read the URL that routes are appended to."""
    match = _URL.fullmatch(value)
    if match is None:
        raise ValueError(f"{shown(value)} is not a URL such as http://127.0.0.1:3000")
    return f"{match[1] or 'http'}://{match[2]}{(match[3] or '').rstrip('/')}"


def metrics_url(value: str) -> str:
    """Read auto, off or a whole URL."""
    return value if value in ("auto", "off") else base_url(value)


def path(value: str) -> str:
    """Read the path of a route; a query may follow."""
    if not re.fullmatch(r"/[^\s#]*", value):
        raise ValueError(f"{shown(value)} is not a path such as /v1/completions")
    return value


def _entries(value: str) -> list[str]:
    entries = [entry.strip() for entry in value.split(",")]
    if not all(entries):
        raise ValueError(f"{shown(value)} has an empty entry")
    return entries


def _once_each(value: str, found: tuple[_T, ...]) -> tuple[_T, ...]:
    if len(set(found)) != len(found):
        raise ValueError(f"{shown(value)} names a stage twice")
    return found
