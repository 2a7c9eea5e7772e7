"""Numbers and names as every output writes them. Milliseconds are for screens only."""

from __future__ import annotations

from tgi_cli.runtime.bench.result import Number, Result, Stage, Summary
from tgi_cli.runtime.config.bench.options import DEFAULT_INPUT_TOKENS, DEFAULT_OUTPUT_TOKENS

NOTHING = "-"
FAIL = "fail"  # an infinite latency: so many requests failed that this percentile is one of them
PERCENTILES = ("p50", "p90", "p95", "p99", "p999")


def short(value: Number, *, digits: int = 3) -> str:
    """Return a number with about so many digits that mean something, and no exponent."""
    if value is None:
        return NOTHING
    if value == "inf":
        return FAIL
    number = float(value)
    if number == 0:
        return "0"
    decimals = digits
    size = abs(number)
    while size >= 1 and decimals > 0:
        decimals -= 1
        size /= 10
    text = f"{number:,.{decimals}f}" if size < 1 or decimals == 0 else f"{number:,.0f}"
    return text.rstrip("0").rstrip(".") if "." in text and abs(number) < 1 else text


def milliseconds(value: Number) -> str:
    return short(value * 1e3) if isinstance(value, float | int) else short(value)


def seconds(value: Number) -> str:
    return short(value)


def percent(value: float | None, *, digits: int = 1) -> str:
    return NOTHING if value is None else f"{100 * value:.{digits}f}"


def load(result: Result) -> str:
    """Return how requests came, and how long their inputs and outputs were meant to be."""
    config = result.config
    kinds = [stage.load.arrival or stage.load.kind for stage in result.stages]
    files = [name for name in ("dataset", "trace", "conversations") if config.get(name)]
    parts = [", ".join(dict.fromkeys([*kinds, *files]))]
    if not files:
        input_tokens = config.get("input-tokens") or f"{DEFAULT_INPUT_TOKENS.value:g}"
        output_tokens = config.get("output-tokens") or f"{DEFAULT_OUTPUT_TOKENS.value:g}"
        parts.append(f"in {input_tokens} out {output_tokens}")
    return " | ".join(part for part in parts if part)


def percentile_name(name: str) -> str:
    return "p99.9" if name == "p999" else name


def is_proven(summary: Summary, name: str) -> bool:
    """Whether there were enough values for the percentile to have an interval."""
    return percentile_name(name) in summary.ci95


def population(stage: Stage, metric: str) -> Summary:
    """Return the summary that a table shows: with the failures as soon as there is one."""
    latency = getattr(stage.latency, metric)
    counts = stage.counts
    has_failures = counts.failed or counts.unfinished or counts.dropped
    return latency.all if has_failures else latency.ok  # type: ignore[no-any-return]


def percentile_cell(stage: Stage, metric: str, name: str, *, in_seconds: bool = False) -> str:
    """Return a percentile, in brackets if too few values prove it."""
    summary = population(stage, metric)
    value: Number = getattr(summary, name)
    text = seconds(value) if in_seconds else milliseconds(value)
    if value is None or value == "inf" or is_proven(summary, name):
        return text
    return f"({text})"
