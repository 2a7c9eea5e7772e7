"""What `tgi bench compare` prints: as a table, Markdown, JSON or a page."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from html import escape
from typing import Literal

import msgspec

from tgi_cli.runtime.bench.compare import Compared, Comparison, Pair
from tgi_cli.runtime.bench.report import words
from tgi_cli.runtime.bench.report.html import page, table
from tgi_cli.runtime.bench.report.markdown import code, line
from tgi_cli.runtime.bench.report.terminal import plain
from tgi_cli.runtime.bench.result import Number
from tgi_cli.runtime.bench.stage_values import SHARES, is_time
from tgi_cli.runtime.bench.statistics import real

ComparisonFormat = Literal["table", "md", "json", "html"]
COMPARISON_FORMATS: tuple[ComparisonFormat, ...] = ("table", "md", "json", "html")

_HEAD = ("", "A", "B", "change", "95 % of B/A", "verdict")


def render_comparisons(comparisons: Sequence[Comparison], form: ComparisonFormat) -> str:
    """Return the whole text, its last line ended. Everything from outside is made harmless."""
    match form:
        case "table":
            return "\n\n".join("\n".join(_table(one)) for one in comparisons) + "\n"
        case "md":
            return "\n\n".join("\n".join(_markdown(one)) for one in comparisons) + "\n"
        case "json":
            return msgspec.json.format(msgspec.json.encode(comparisons), indent=1).decode() + "\n"
        case "html":
            return page("tgi bench compare", "".join(map(_html, comparisons)))


def _table(comparison: Comparison) -> Iterator[str]:
    yield f"A  {plain(comparison.a)}"
    yield f"B  {plain(comparison.b)}"
    for pair in comparison.pairs:
        yield ""
        rows = [(_title(pair), *_HEAD[1:]), *map(_row, pair.metrics)]
        widths = [max(len(row[k]) for row in rows) for k in range(len(_HEAD))]
        for row in rows:
            first, *numbers, verdict = row
            cells = [first.ljust(widths[0])]
            cells += [cell.rjust(width) for cell, width in zip(numbers, widths[1:], strict=False)]
            yield "  ".join([*cells, verdict]).rstrip()
        yield from (f"not comparable: {plain(reason)}" for reason in pair.not_comparable)
    notes = list(_notes(comparison))
    if notes:
        yield ""
        yield from map(plain, notes)


def _markdown(comparison: Comparison) -> Iterator[str]:
    yield f"`tgi bench compare`: A is {code(comparison.a)}, B is {code(comparison.b)}"
    for pair in comparison.pairs:
        yield ""
        yield line((_title(pair), *_HEAD[1:]))
        yield line(["---"] * len(_HEAD))
        yield from (line(_row(metric)) for metric in pair.metrics)
        if pair.not_comparable:
            yield ""
            yield from (f"- not comparable: {code(reason)}" for reason in pair.not_comparable)
    notes = list(_notes(comparison))
    if notes:
        yield ""
        yield from (f"- {code(note)}" for note in notes)


def _html(comparison: Comparison) -> str:
    parts = [f"<h1>{_safe(comparison.b)}</h1><p>against {_safe(comparison.a)}</p>"]
    for pair in comparison.pairs:
        parts.append(f"<section><h2>{_safe(_title(pair))}</h2>")
        parts += [
            f'<p class="banner">not comparable: {_safe(reason)}</p>'
            for reason in pair.not_comparable
        ]
        parts.append(f"{table(_HEAD, map(_row, pair.metrics))}</section>")
    parts += [f'<p class="quiet">{_safe(note)}</p>' for note in _notes(comparison)]
    return "".join(parts)


def _safe(text: str) -> str:
    return escape(plain(text))


def _title(pair: Pair) -> str:
    a, b = pair.runs
    return pair.stage if a == b == 1 else f"{pair.stage} ({a} and {b} runs)"


def _row(one: Compared) -> tuple[str, ...]:
    return (
        _name(one.metric),
        _number(one.metric, one.a),
        _number(one.metric, one.b),
        _change(one.change),
        "" if one.ci95 is None else f"{_factor(one.ci95[0])} to {_factor(one.ci95[1])}",
        one.verdict,
    )


def _name(metric: str) -> str:
    unit = " ms" if is_time(metric) else " %" if metric in SHARES else ""
    return metric.replace(".", " ") + unit


def _number(metric: str, value: Number) -> str:
    if is_time(metric):
        return words.milliseconds(value)
    if metric in SHARES:
        return words.percent(real(value), digits=2)
    return words.short(value)


def _change(change: Number) -> str:
    return words.NOTHING if change in (None, "inf") else f"{100 * float(change or 0):+.1f} %"


def _factor(end: Number) -> str:
    value = real(end)
    return words.NOTHING if value is None else f"{value:.3f}"


def _notes(comparison: Comparison) -> Iterator[str]:
    for name, stages in (("A", comparison.only_a), ("B", comparison.only_b)):
        if stages:
            yield f"only in {name}: {', '.join(stages)}"
    if not comparison.pairs:
        yield "not comparable: no stage is in both"
    for one in comparison.differences:
        yield f"differs: {one.name}: {_value(one.a)} | {_value(one.b)}"


def _value(value: object) -> str:
    return "unset" if value is None else str(value)
