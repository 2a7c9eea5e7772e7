"""What became of the limits of `--slo`, in words. Spec: bench.md sections 9 and 13."""

from __future__ import annotations

import re

from tgi_cli.runtime.bench.report import words
from tgi_cli.runtime.bench.result import SloOutcome
from tgi_cli.runtime.bench.stage_values import SHARES, TIME_NAMES

_NAME = re.compile(r"[a-z0-9_]+")


def limit_value(slo: SloOutcome) -> str:
    """Return what was held against the limit, with its unit."""
    match = _NAME.match(slo.expr)
    name = match[0] if match else ""
    if slo.value is None or slo.value == "inf":
        return words.short(slo.value)
    if name in TIME_NAMES:
        return f"{words.milliseconds(slo.value)} ms"
    if name in SHARES:
        return f"{words.percent(slo.value)} %"
    return words.short(slo.value)


def limit_state(slo: SloOutcome) -> str:
    """Return the value, and what a reader must know to believe the outcome."""
    parts = [limit_value(slo)]
    if slo.why is not None:
        parts.append(slo.why)
    return ", ".join(parts)
