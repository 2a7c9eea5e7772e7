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

_T = TypeVar("_T")
RampKind = Literal["rate", "concurrency"]
LengthKind = Literal["fixed", "uniform", "normal", "lognormal", "choice", "file"]
GoodputLimit = Literal["ttft", "tpot", "itl_max", "e2e"]

MAX_TOKENS = 1 << 24
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
        raise ValueError(f"{_shown(value)} is not a time such as 500ms, 20s or 2m")
    return seconds


def positive_duration(value: str) -> float:
    seconds = duration(value)
    if seconds <= 0:
        raise ValueError(f"{_shown(value)} is not a time above 0")
    return seconds


def percentage(value: str) -> float:
    """Read a share such as 5%; the percent sign is needed."""
    if not value.endswith("%"):
        raise ValueError(f"{_shown(value)} is not a percentage such as 5%")
    share = parsers.number(value[:-1]) / 100
    if not 0 <= share <= 1:
        raise ValueError(f"{_shown(value)} is not from 0% to 100%")
    return share


def positive_percentage(value: str) -> float:
    share = percentage(value)
    if share == 0:
        raise ValueError(f"{_shown(value)} is not above 0%")
    return share


def positive_count(value: str) -> int:
    number = parsers.count(value)
    if not 1 <= number <= 10**9:
        raise ValueError(f"{_shown(value)} is not a whole number, 1 or more")
    return number


def positive_number(value: str) -> float:
    number = parsers.number(value)
    if number <= 0:
        raise ValueError(f"{_shown(value)} is not above 0")
    return number


def counts(value: str) -> tuple[int, ...]:
    """Read a comma list of whole numbers, 1 or more: one stage each."""
    return _once_each(value, tuple(positive_count(entry) for entry in _entries(value)))


def rates(value: str) -> tuple[float, ...]:
    """Read a comma list of rates, in requests per second."""
    return _once_each(value, tuple(positive_number(entry) for entry in _entries(value)))


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
        raise ValueError(f"{_shown(value)} is not a ramp such as 1..50/120s")
    start, stop = parsers.ratio(match[1]), parsers.ratio(match[2])
    if start == stop == 0:
        raise ValueError(f"{_shown(value)} puts no load on at all")
    return Ramp(start, stop, positive_duration(match[3]))


@dataclass(frozen=True, slots=True, kw_only=True)
class Lengths:
    """A distribution of lengths, in tokens."""

    kind: LengthKind
    value: int = 0  # fixed
    low: int = 0  # uniform, inclusive
    high: int = 0
    center: float = 0.0  # mean of normal, median of lognormal
    spread: float = 0.0  # standard deviation of normal, sigma of lognormal
    minimum: int = 1
    maximum: int = MAX_TOKENS
    choices: tuple[tuple[int, float], ...] = ()  # length and weight
    path: str = ""  # file: one length a line

    def __str__(self) -> str:
        match self.kind:
            case "fixed":
                return str(self.value)
            case "uniform":
                return f"uniform:{self.low}..{self.high}"
            case "choice":
                return "choice:" + ",".join(f"{n}@{weight:.12g}" for n, weight in self.choices)
            case "file":
                return f"file:{self.path}"
        center, spread = ("", "sd") if self.kind == "normal" else ("median=", "sigma")
        limits = f",min={self.minimum}"
        if self.maximum != MAX_TOKENS:
            limits += f",max={self.maximum}"
        return f"{self.kind}:{center}{self.center:.12g},{spread}={self.spread:.12g}{limits}"


def lengths(value: str) -> Lengths:
    """Read `512`, or a distribution: uniform, normal, lognormal, choice or file."""
    kind, colon, rest = value.partition(":")
    if not colon:
        return Lengths(kind="fixed", value=_length(value))
    match kind:
        case "uniform":
            low, dots, high = rest.partition("..")
            found = Lengths(kind="uniform", low=_length(low), high=_length(high) if dots else 0)
            if found.low > found.high:
                raise ValueError(f"{_shown(value)} is not a range such as uniform:100..900")
            return found
        case "normal" | "lognormal":
            return _bell(value, kind, rest)
        case "choice":
            return Lengths(kind="choice", choices=_choices(value, rest))
        case "file" if rest:
            return Lengths(kind="file", path=rest)
    raise ValueError(
        f"{_shown(value)} is not a length: a number, uniform:A..B, normal:MEAN,sd=S, "
        "lognormal:median=M,sigma=S, choice:N@WEIGHT,… or file:PATH"
    )


def _bell(value: str, kind: Literal["normal", "lognormal"], rest: str) -> Lengths:
    center, spread = ("mean", "sd") if kind == "normal" else ("median", "sigma")
    fields: dict[str, str] = {}
    for position, entry in enumerate(rest.split(",")):
        name, sign, given = entry.partition("=")
        if position == 0 and not sign:
            name, given = center, entry
        if name not in (center, spread, "min", "max") or name in fields:
            raise ValueError(f"{_shown(value)}: {_shown(name)} is not expected there")
        if given or name not in ("min", "max"):  # `min=` alone sets no limit
            fields[name] = given
    if center not in fields or spread not in fields:
        raise ValueError(f"{_shown(value)} needs {center} and {spread}")
    minimum = _length(fields["min"]) if "min" in fields else 1
    maximum = _length(fields["max"]) if "max" in fields else MAX_TOKENS
    if minimum > maximum:
        raise ValueError(f"{_shown(value)}: min is above max")
    return Lengths(
        kind=kind,
        center=positive_number(fields[center]),
        spread=parsers.ratio(fields[spread]),
        minimum=minimum,
        maximum=maximum,
    )


def _choices(value: str, rest: str) -> tuple[tuple[int, float], ...]:
    found = []
    for entry in rest.split(","):
        length, sign, weight = entry.partition("@")
        found.append((_length(length), parsers.ratio(weight) if sign else 1.0))
    if sum(weight for _, weight in found) <= 0:
        raise ValueError(f"{_shown(value)} gives no length a weight above 0")
    return tuple(found)


def _length(value: str) -> int:
    length = parsers.count(value)
    if not 1 <= length <= MAX_TOKENS:
        raise ValueError(f"{_shown(value)} is not a length from 1 to {MAX_TOKENS} tokens")
    return length


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
        raise ValueError(f"{_shown(value)} is not a prefix such as 1024x8,zipf=1.1")
    groups = positive_count(match[2]) if match[2] else 1
    zipf = parsers.ratio(rest.removeprefix("zipf=")) if comma else 0.0
    return SharedPrefix(_length(match[1]), groups, zipf)


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
            raise ValueError(f"{_shown(entry)} is not a limit such as ttft=500ms; names: {names}")
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
        raise ValueError(f"{_shown(value)} is not KEY=VALUE")
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
        raise ValueError(f"{_shown(value)} is not a JSON object")
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
        raise ValueError(f"{_shown(value)} is not below 2**63")
    return number


def base_url(value: str) -> str:
    """Read the URL that routes are appended to."""
    match = _URL.fullmatch(value)
    if match is None:
        raise ValueError(f"{_shown(value)} is not a URL such as http://127.0.0.1:3000")
    return f"{match[1] or 'http'}://{match[2]}{(match[3] or '').rstrip('/')}"


def metrics_url(value: str) -> str:
    """Read auto, off or a whole URL."""
    return value if value in ("auto", "off") else base_url(value)


def path(value: str) -> str:
    """Read the path of a route; a query may follow."""
    if not re.fullmatch(r"/[^\s#]*", value):
        raise ValueError(f"{_shown(value)} is not a path such as /v1/completions")
    return value


def _entries(value: str) -> list[str]:
    entries = [entry.strip() for entry in value.split(",")]
    if not all(entries):
        raise ValueError(f"{_shown(value)} has an empty entry")
    return entries


def _once_each(value: str, found: tuple[_T, ...]) -> tuple[_T, ...]:
    if len(set(found)) != len(found):
        raise ValueError(f"{_shown(value)} names a stage twice")
    return found


def _shown(value: str) -> str:
    return repr(value if len(value) <= 80 else f"{value[:80]}…")
