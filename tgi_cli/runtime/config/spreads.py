"""Numbers drawn from a distribution that an option names: `20ms`, `uniform:10ms..30ms`, ….

    20ms                                      always the same
    uniform:10ms..30ms                        both ends included
    exponential:20ms                          by its mean
    normal:20ms,sd=5ms[,min=1ms][,max=50ms]
    lognormal:median=20ms,sigma=0.5[,min=…][,max=…]

`min` and `max` clip what was drawn; nothing is ever below 0.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from tgi_cli.runtime.config.parsers import number

if TYPE_CHECKING:
    from random import Random

Kind = Literal["constant", "uniform", "exponential", "normal", "lognormal"]
_FORMS = "a value, uniform:A..B, exponential:MEAN, normal:MEAN,sd=S or lognormal:median=M,sigma=S"


@dataclass(frozen=True, slots=True)
class Spread:
    kind: Kind
    center: float  # the constant, the lower end, the mean or the median
    width: float = 0.0  # the upper end, the standard deviation or sigma
    low: float = 0.0
    high: float = math.inf

    def draw(self, rng: Random) -> float:
        return min(max(self._draw(rng), self.low), self.high)

    def _draw(self, rng: Random) -> float:
        if self.kind == "uniform":
            return rng.uniform(self.center, self.width)
        if self.kind == "exponential":
            return rng.expovariate(1 / self.center) if self.center else 0.0
        if self.kind == "normal":
            return rng.gauss(self.center, self.width)
        if self.kind == "lognormal":
            return self.center * math.exp(rng.gauss(0.0, self.width))
        return self.center


def constant(value: float) -> Spread:
    return Spread("constant", value)


def parse_spread(text: str, value: Callable[[str], float]) -> Spread:
    """Read a distribution whose values `value` reads. Raises `ValueError` with the forms."""
    kind, colon, rest = text.partition(":")
    if not colon:
        return constant(value(text))
    words = rest.split(",")
    named = dict(word.split("=", 1) for word in words if "=" in word)
    plain = [word for word in words if "=" not in word]
    clip = {
        key: value(named.pop(name))
        for name, key in (("min", "low"), ("max", "high"))
        if name in named
    }
    if clip.get("low", 0.0) > clip.get("high", math.inf):
        raise ValueError(f"min is above max in {text!r}")
    spread: Spread | None = None
    if kind == "uniform" and len(plain) == 1 and ".." in plain[0] and not (named or clip):
        first, _, last = plain[0].partition("..")
        spread = Spread("uniform", value(first), value(last))
        if spread.width < spread.center:
            raise ValueError(f"the end is below the beginning in {text!r}")
    elif kind == "exponential" and len(plain) == 1 and not named:
        spread = Spread("exponential", value(plain[0]), **clip)
    elif kind == "normal" and len(plain) == 1 and set(named) == {"sd"}:
        spread = Spread("normal", value(plain[0]), value(named["sd"]), **clip)
    elif kind == "lognormal" and not plain and set(named) == {"median", "sigma"}:
        sigma = number(named["sigma"])
        if sigma < 0:
            raise ValueError(f"sigma is negative in {text!r}")
        spread = Spread("lognormal", value(named["median"]), sigma, **clip)
    if spread is None:
        raise ValueError(f"{text!r} is not {_FORMS}")
    return spread
