"""Read and judge `--slo`: `ttft.p99<500ms`, `out_tok_s>=1000@c=8`, `error_rate<0.1%`.

An SLO looks at all requests, failures infinite. It must hold in every stage, or in the one behind
`@`. A percentile of too few requests to have an interval is unproven: judged by its value, and
failed with `--strict`. An invalid stage meets none. Spec: bench.md sections 9 and 14.
"""

from __future__ import annotations

import math
import operator
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from tgi_cli.runtime.bench.distributions import num_values_for_ranks
from tgi_cli.runtime.bench.result import SloOutcome, Stage
from tgi_cli.runtime.bench.stage_values import (
    GOODPUTS,
    PLAIN_NAMES,
    SHARES,
    STATISTICS,
    TIME_NAMES,
    is_proven,
    summary_of,
    value_of,
)
from tgi_cli.runtime.bench.statistics import CONFIDENCE, PERCENTILES, number, real

_FORM = re.compile(
    r"(?P<name>[a-z0-9_]+)(?:\.(?P<statistic>[a-z0-9.]+))?"
    r"\s*(?P<sign><=|>=|<|>)\s*(?P<limit>[0-9.]+)\s*(?P<unit>[a-z%]*)"
    r"\s*(?:@(?P<kind>[a-z]+)=(?P<at>[0-9.]+))?",
    re.ASCII,
)
_COMPARE: dict[str, Callable[[float, float], bool]] = {
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}
_UNITS = {"us": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}
_LOADS = {"c": "concurrency", "concurrency": "concurrency", "rate": "rate", "burst": "burst"}


@dataclass(frozen=True, slots=True)
class Slo:
    expr: str  # as it was written
    name: str  # as in stage_values.py
    sign: str
    limit: float  # seconds, a share, or per second
    load: tuple[str, float] | None = None  # kind and value of the stage; None: every stage

    def is_about(self, stage: Stage) -> bool:
        """Return whether the stage is one of those in which this must hold."""
        if self.load is None:
            return True
        kind, value = self.load
        return (
            stage.load.kind == kind
            and isinstance(stage.load.value, float | int)
            and math.isclose(stage.load.value, value)
        )


def parse_slo(text: str, *, has_goodput: bool = True) -> Slo:
    """Read one expression; `has_goodput`: whether there are limits to be good by.

    Raises:
        ValueError: it can't be read, or can't be judged; the text says why.
    """
    match = _FORM.fullmatch(text.strip())
    if match is None:
        raise ValueError(f"{_shown(text)} is not an SLO such as ttft.p99<500ms or out_tok_s>=1000")
    name, limit = _name(text, match), _limit(text, match)
    if name in GOODPUTS and not has_goodput:
        raise ValueError(f"{_shown(text)} needs limits to be good by: --goodput ttft=500ms,…")
    load = None
    if kind := match["kind"]:
        if kind not in _LOADS:
            raise ValueError(f"{_shown(text)}: a stage is named @c=8, @rate=4 or @burst=2")
        load = (_LOADS[kind], _plain_number(text, match["at"]))
    return Slo(text.strip(), name, match["sign"], limit, load)


def _name(text: str, match: re.Match[str]) -> str:
    name, statistic = match["name"], match["statistic"]
    if name in PLAIN_NAMES:
        if statistic:
            raise ValueError(f"{_shown(text)}: {name} is one number, without .{statistic}")
        return name
    if name not in TIME_NAMES:
        known = ", ".join((*TIME_NAMES, *PLAIN_NAMES))
        raise ValueError(f"{_shown(text)}: {name} is not one of {known}")
    if statistic not in STATISTICS:
        raise ValueError(f"{_shown(text)}: say which {name}, of {', '.join(STATISTICS)}")
    return f"{name}.{statistic}"


def _limit(text: str, match: re.Match[str]) -> float:
    name, unit = match["name"], match["unit"]
    limit = _plain_number(text, match["limit"])
    if name in TIME_NAMES:
        if unit not in _UNITS:
            raise ValueError(f"{_shown(text)}: a time needs its unit, of {', '.join(_UNITS)}")
        return limit * _UNITS[unit]
    if name in SHARES:
        if unit not in ("", "%"):
            raise ValueError(f"{_shown(text)}: {name} is a share, such as 5% or 0.05")
        share = limit / 100 if unit else limit
        if share > 1:
            raise ValueError(f"{_shown(text)}: a share is at most 100%")
        return share
    if unit:
        raise ValueError(f"{_shown(text)}: {name} has no unit {unit}")
    return limit


def _plain_number(text: str, digits: str) -> float:
    try:
        return float(digits)
    except ValueError:
        raise ValueError(f"{_shown(text)}: {digits} is not a number") from None


def judge_slos(
    slos: Iterable[Slo], stages: Sequence[Stage], *, strict: bool = False
) -> list[SloOutcome]:
    """Judge each in each of its stages; one whose stage wasn't run is failed."""
    has_repeats = any(stage.repeat for stage in stages)
    outcomes: list[SloOutcome] = []
    for slo in slos:
        found = [stage for stage in stages if slo.is_about(stage)]
        for stage in found:
            run = f" run {stage.repeat + 1}" if has_repeats else ""
            outcomes.append(_judge(slo, stage, f"{stage.key}{run}", strict=strict))
        if not found:
            where = "none was run" if slo.load is None else "{}={:g}".format(*slo.load)
            outcomes.append(
                SloOutcome(
                    expr=slo.expr,
                    stage=where,
                    value=None,
                    passed=False,
                    why="no such stage was run",
                )
            )
    return outcomes


def _judge(slo: Slo, stage: Stage, where: str, *, strict: bool) -> SloOutcome:
    value = real(value_of(stage, slo.name))
    proven = is_proven(stage, slo.name)
    holds = value is not None and _COMPARE[slo.sign](value, slo.limit)
    return SloOutcome(
        expr=slo.expr,
        stage=where,
        value=number(value),
        passed=holds and stage.verdict != "invalid" and (proven or not strict),
        proven=proven,
        why=_why(slo, stage, value, is_proven=proven),
    )


def _why(slo: Slo, stage: Stage, value: float | None, *, is_proven: bool) -> str | None:
    """Return what an outcome owes to something else than the value."""
    if stage.verdict == "invalid":
        return "the stage is invalid"
    if value is None:
        return "nothing tells it"
    if is_proven:
        return None
    metric, _, statistic = slo.name.partition(".")
    summary = summary_of(stage, metric)
    assert summary is not None, slo.name
    needed = num_values_for_ranks(PERCENTILES[statistic], CONFIDENCE)
    return f"n {summary.n} < {needed}"


def _shown(text: str) -> str:
    return repr(text if len(text) <= 80 else f"{text[:80]}…")
