"""Distributions of lengths in tokens, as `--input-tokens` and `--output-tokens` take them.

Spec: bench.md section 7.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from tgi_cli.runtime.config import parsers
from tgi_cli.runtime.config.parsers import shown

LengthKind = Literal["fixed", "uniform", "normal", "lognormal", "choice", "file"]

MAX_TOKENS = 1 << 24
_MAX_SIGMA = 20.0  # e to this power is more than there are tokens


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
        return Lengths(kind="fixed", value=token_count(value))
    match kind:
        case "uniform":
            low, dots, high = rest.partition("..")
            found = Lengths(
                kind="uniform", low=token_count(low), high=token_count(high) if dots else 0
            )
            if found.low > found.high:
                raise ValueError(f"{shown(value)} is not a range such as uniform:100..900")
            return found
        case "normal" | "lognormal":
            return _bell(value, kind, rest)
        case "choice":
            return Lengths(kind="choice", choices=_choices(value, rest))
        case "file" if rest:
            return Lengths(kind="file", path=rest)
    raise ValueError(
        f"{shown(value)} is not a length: a number, uniform:A..B, normal:MEAN,sd=S, "
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
            raise ValueError(f"{shown(value)}: {shown(name)} is not expected there")
        if given or name not in ("min", "max"):  # `min=` alone sets no limit
            fields[name] = given
    if center not in fields or spread not in fields:
        raise ValueError(f"{shown(value)} needs {center} and {spread}")
    minimum = token_count(fields["min"]) if "min" in fields else 1
    maximum = token_count(fields["max"]) if "max" in fields else MAX_TOKENS
    if minimum > maximum:
        raise ValueError(f"{shown(value)}: min is above max")
    width = parsers.ratio(fields[spread])
    if width > (MAX_TOKENS if kind == "normal" else _MAX_SIGMA):
        raise ValueError(f"{shown(value)}: {spread} is beyond any length")
    return Lengths(
        kind=kind,
        center=parsers.positive_number(fields[center]),
        spread=width,
        minimum=minimum,
        maximum=maximum,
    )


def _choices(value: str, rest: str) -> tuple[tuple[int, float], ...]:
    found = []
    for entry in rest.split(","):
        length, sign, weight = entry.partition("@")
        found.append((token_count(length), parsers.ratio(weight) if sign else 1.0))
    if sum(weight for _, weight in found) <= 0:
        raise ValueError(f"{shown(value)} gives no length a weight above 0")
    return tuple(found)


def token_count(value: str) -> int:
    """Read a length in tokens, 1 or more."""
    length = parsers.count(value)
    if not 1 <= length <= MAX_TOKENS:
        raise ValueError(f"{shown(value)} is not a length from 1 to {MAX_TOKENS} tokens")
    return length
