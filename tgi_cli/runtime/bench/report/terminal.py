"""The report on stdout: a head, a row for each stage, SLOs, and how the latencies lie."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from tgi_cli.runtime.bench.report import words
from tgi_cli.runtime.bench.report.bars import bars
from tgi_cli.runtime.bench.report.cache_hits import cache_warning
from tgi_cli.runtime.bench.report.limits import limit_state
from tgi_cli.runtime.bench.report.remarks import remarks
from tgi_cli.runtime.bench.report.waiting import waiting
from tgi_cli.runtime.bench.result import Distribution, Rates, Result, Stage, Verdict
from tgi_cli.runtime.bench.stage_values import error_rate
from tgi_cli.runtime.bench.statistics import real

_RED, _YELLOW, _GREEN, _DIM = "31", "33", "32", "2"
_COLOURS: dict[Verdict, str] = {"valid": _GREEN, "warn": _YELLOW, "invalid": _RED}
_HEAD = (
    ("stage", ""),
    ("req/s", "done/off"),
    ("out tok/s", "all (steady)"),
    ("ttft ms", "p50"),
    ("", "p99"),
    ("tpot ms", "p50"),
    ("", "p99"),
    ("itl ms", "p50"),
    ("", "p99"),
    ("e2e s", "p50"),
    ("", "p99"),
    ("err", "%"),
    ("good", "%"),
    ("stall", "p99 ms"),
    ("lag", "p99 ms"),
)


def render(result: Result, *, is_ascii: bool = False, has_colour: bool = False) -> str:
    """Return the whole report."""
    paint = _Paint(has_colour)
    lines = [*_head(result, paint), "", *_table(result.stages, paint)]
    lines += _sweep(result)
    lines += _aggregates(result)
    lines += _slos(result, paint)
    lines += _waiting(result)
    lines += _warnings(result, paint)
    for stage in result.stages:
        lines += _distributions(stage, is_ascii=is_ascii)
    if any(stage.load.kind == "concurrency" for stage in result.stages):
        lines += ["", "closed loop: latencies hide waiting"]
    if result.exit_code:
        lines += ["", f"exit {result.exit_code}: {result.exit_reason or ''}".rstrip()]
    text = "\n".join(lines) + "\n"
    return text.replace("±", "+-") if is_ascii else text


class _Paint:
    def __init__(self, has_colour: bool) -> None:
        self._has_colour = has_colour

    def __call__(self, text: str, colour: str) -> str:
        return f"\x1b[{colour}m{text}\x1b[0m" if self._has_colour else text


def plain(text: str) -> str:
    """Return text from outside without what could move or colour a terminal."""
    return "".join(char if char.isprintable() else "�" for char in text)


def _head(result: Result, paint: _Paint) -> Iterator[str]:
    if warning := cache_warning(result):
        yield paint(plain(warning), _YELLOW)
    verdict = worst_verdict(result.stages)
    lag = max((_lag(stage) for stage in result.stages), default=None)
    workers = result.client.workers
    parts = [
        f"tgi bench  {plain(result.endpoint.url)}  {result.endpoint.protocol or '?'}",
        plain(result.endpoint.model or "?"),
        plain(words.load(result)),
        f"{workers} worker{'s' if workers != 1 else ''}, lag p99 {words.milliseconds(lag)} ms",
        paint(verdict.upper(), _COLOURS[verdict]),
    ]
    yield " | ".join(parts)


def worst_verdict(stages: Sequence[Stage]) -> Verdict:
    verdicts = {stage.verdict for stage in stages}
    return "invalid" if "invalid" in verdicts else "warn" if "warn" in verdicts else "valid"


def _lag(stage: Stage) -> float:
    value = stage.generator.lag.p99
    return value if isinstance(value, float | int) else 0.0


def _table(stages: Sequence[Stage], paint: _Paint) -> list[str]:
    cells = [[title for title, _ in _HEAD], [unit for _, unit in _HEAD]]
    cells += [_row(stage) for stage in stages]
    widths = [max(len(row[i]) for row in cells) for i in range(len(_HEAD))]
    lines = []
    for row in cells:
        name, *numbers = row
        padded = [text.rjust(width) for text, width in zip(numbers, widths[1:], strict=True)]
        lines.append("  ".join([name.ljust(widths[0]), *padded]).rstrip())
    for index, stage in enumerate(stages, 2):
        marks = [mark for mark in (_stability(stage), _mark(stage)) if mark]
        if marks:
            colour = _RED if stage.verdict == "invalid" or stage.is_stable is False else _YELLOW
            lines[index] += "  " + paint(" ".join(marks), colour)
    return [paint(lines[0], "1"), paint(lines[1], _DIM), *lines[2:]]


def _row(stage: Stage) -> list[str]:
    rates, steady = stage.throughput.all, stage.throughput.steady
    done = words.short(rates.req_s, digits=2)
    offered = stage.throughput.offered_req_s
    steady_text = _with_interval(steady) if stage.phases.steady.found else "no steady"
    key = stage.key if not stage.repeat else f"{stage.key} #{stage.repeat + 1}"
    row = [
        key,
        done if offered is None else f"{done}/{words.short(offered, digits=2)}",
        f"{words.short(rates.out_tok_s)} ({steady_text})",
    ]
    for metric in ("ttft", "tpot", "itl", "e2e"):
        for name in ("p50", "p99"):
            row.append(words.percentile_cell(stage, metric, name, in_seconds=metric == "e2e"))
    row += [
        words.percent(error_rate(stage)),
        words.percent(stage.goodput.fraction) if stage.goodput.limits else words.NOTHING,
        words.percentile_cell(stage, "stall", "p99"),
        words.milliseconds(stage.generator.lag.p99),
    ]
    return row


def _with_interval(steady: Rates) -> str:
    """Return the output tokens a second and half the width of their interval, in percent."""
    text = words.short(steady.out_tok_s)
    value = real(steady.out_tok_s)
    low, high = (real(edge) for edge in steady.ci95.get("out_tok_s", (None, None)))
    if not value or low is None or high is None:
        return text
    return f"{text} ±{words.percent((high - low) / 2 / value)}%"


def _stability(stage: Stage) -> str:
    return "UNSTABLE" if stage.is_stable is False else ""


def _mark(stage: Stage) -> str:
    return "" if stage.verdict == "valid" else stage.verdict.upper()


def _sweep(result: Result) -> list[str]:
    sweep = result.sweep
    found = [
        f"{name} {words.short(value)} req/s"
        for name, value in (("saturated at", sweep.sat_req_s), ("SLO holds up to", sweep.slo_req_s))
        if value is not None
    ]
    return ["", "sweep: " + ", ".join(found)] if found else []


def _aggregates(result: Result) -> list[str]:
    lines = []
    for aggregate in result.aggregate:
        shown = []
        for name, numbers in aggregate.metrics.items():
            mean, (low, high) = numbers.get("mean"), numbers.get("ci95") or (None, None)
            shown.append(f"{name} {words.short(mean)} [{words.short(low)}, {words.short(high)}]")
        lines.append(f"{aggregate.key} over {aggregate.runs} runs: " + "; ".join(shown))
    return ["", *lines] if lines else []


def _slos(result: Result, paint: _Paint) -> list[str]:
    lines = []
    for slo in result.slo:
        state = paint("ok", _GREEN) if slo.passed else paint("FAILED", _RED)
        unproven = "" if slo.proven else ", unproven"
        lines.append(f"SLO  {slo.expr}  {slo.stage} {state}{unproven} ({limit_state(slo)})")
    return ["", *lines] if lines else []


def _waiting(result: Result) -> list[str]:
    lines = [f"{stage.key}: {waiting(stage, result.stages)}" for stage in result.stages]
    return ["", *lines] if lines else []


def _warnings(result: Result, paint: _Paint) -> list[str]:
    lines = []
    for stage in result.stages:
        colour = _COLOURS[stage.verdict]
        lines += [paint(f"{stage.key}: {reason}", colour) for reason in stage.verdict_reasons]
        lines += [f"{stage.key}: {remark}" for remark in remarks(stage)]
        for failure, count in sorted(stage.counts.by_class.items()):
            message = plain(stage.counts.messages.get(failure, ""))
            lines.append(f"{stage.key}: {count} {failure}" + (f": {message}" if message else ""))
    return ["", *lines] if lines else []


def _distributions(stage: Stage, *, is_ascii: bool) -> list[str]:
    lines = []
    for metric in ("ttft", "itl"):
        distribution = stage.distributions.get(metric)
        if distribution is not None and distribution.counts:
            lines.append(_distribution_line(stage, metric, distribution, is_ascii=is_ascii))
    return ["", *lines] if lines else []


def _distribution_line(
    stage: Stage, metric: str, distribution: Distribution, *, is_ascii: bool
) -> str:
    summary = words.population(stage, metric)
    marks = " · ".join(
        f"{name} {words.milliseconds(getattr(summary, name))}" for name in ("p50", "p90", "p99")
    )
    low, high = (words.milliseconds(distribution.edges[i]) for i in (0, -1))
    drawn = bars(distribution, is_ascii=is_ascii)
    separator = "|" if is_ascii else "▏"
    text = (
        f"{metric:<4} {stage.key}   {low} ms {separator}{drawn}{separator} {high} ms   "
        f"{marks} · n {summary.n} · {distribution.num_infinite} failed"
    )
    return text.replace("·", ",") if is_ascii else text
