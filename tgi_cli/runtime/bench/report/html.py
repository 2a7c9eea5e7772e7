"""`report.html`: one file that needs nothing else, not even a network."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from html import escape
from importlib import resources

from tgi_cli.runtime.bench.report import charts, svg, words
from tgi_cli.runtime.bench.report.cache_hits import cache_warning
from tgi_cli.runtime.bench.report.limits import limit_value
from tgi_cli.runtime.bench.report.remarks import remarks
from tgi_cli.runtime.bench.report.terminal import worst_verdict
from tgi_cli.runtime.bench.report.waiting import waiting
from tgi_cli.runtime.bench.result import Result, Stage
from tgi_cli.runtime.bench.stage_values import error_rate

_METRICS = ("ttft", "ttfc", "tpot", "tpot_n1", "itl", "icl", "stall", "e2e")


def render_html(result: Result) -> str:
    """Return the page. Everything that came from outside is escaped."""
    parts = [
        _head(result),
        _banners(result),
        _section("Stages", _stage_table(result.stages)),
        _section("Limits", _slo_table(result)) if result.slo else "",
        _section("Against the load", _figures(charts.load_charts(result))),
        _section("How the times lie", _figures(charts.distribution_charts(result.stages))),
        *(_stage(stage, result.stages) for stage in result.stages),
        _section("Over several runs", _aggregate_table(result)) if result.aggregate else "",
        _section("Configuration", _facts(_configuration(result))),
        _section("Environment", _facts(_environment(result))),
    ]
    return page(f"tgi bench: {result.endpoint.model or result.endpoint.url}", "".join(parts))


def page(title: str, body: str) -> str:
    """Return a whole page around `body`, which is markup; the title is text."""
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        '<meta http-equiv="Content-Security-Policy" '
        "content=\"default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'\">"
        f"<title>{escape(title)}</title><style>{_static('report.css')}</style></head><body>"
        f'{body}<div id="tip" role="tooltip"></div>'
        f"<script>{_static('report.js')}</script></body></html>\n"
    )


def _static(name: str) -> str:
    return (resources.files(__package__) / "static" / name).read_text(encoding="utf-8")


def _section(title: str, body: str) -> str:
    return f"<section><h2>{escape(title)}</h2>{body}</section>" if body else ""


def _head(result: Result) -> str:
    endpoint, verdict = result.endpoint, worst_verdict(result.stages)
    facts = " · ".join(
        escape(str(fact))
        for fact in (
            endpoint.url,
            endpoint.protocol,
            words.load(result),
            result.started,
            f"{result.client.workers} worker(s)",
            f"seed {result.seed}",
        )
    )
    return (
        f"<header><h1>{escape(endpoint.model or 'tgi bench')}</h1>"
        f'<p class="quiet">{facts}</p>'
        f'<p><span class="verdict {verdict}">{verdict}</span></p></header>'
    )


def _banners(result: Result) -> str:
    warning = cache_warning(result)
    lines, notes = [] if warning is None else [warning], ""
    if result.exit_code:
        lines.append(f"exit {result.exit_code}: {result.exit_reason or ''}")
    for stage in result.stages:
        if stage.verdict == "invalid":
            reasons = "; ".join(stage.verdict_reasons)
            lines.append(f"{stage.key}: these numbers are not to be trusted: {reasons}")
    if any(stage.load.kind == "concurrency" for stage in result.stages):
        notes = '<p class="quiet">Closed loop: latencies hide waiting.</p>'
    boxes = [f'<p class="banner">{escape(line)}</p>' for line in lines]
    return "".join(boxes) + notes


def _figures(drawn: Sequence[svg.Chart]) -> str:
    figures = "".join(svg.render(chart) for chart in drawn)
    return f'<div class="charts">{figures}</div>' if figures else ""


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a table; cells are text and are escaped here."""
    titles = "".join(f"<th>{escape(title)}</th>" for title in head)
    body = "".join(
        "<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in rows
    )
    return f'<div class="table"><table><tr>{titles}</tr>{body}</table></div>'


def _facts(facts: dict[str, str]) -> str:
    rows = "".join(
        f'<tr><td>{escape(name)}</td><td class="text">{escape(value)}</td></tr>'
        for name, value in facts.items()
    )
    return f'<div class="table"><table>{rows}</table></div>'


def _stage_table(stages: Sequence[Stage]) -> str:
    head = ["stage", "verdict", "req/s", "offered", "out tok/s", "steady", "in tok/s"]
    head += [f"{metric} {p}, ms" for metric in ("ttft", "tpot", "itl") for p in ("p50", "p99")]
    head += ["e2e p50, s", "e2e p99, s", "errors, %", "good, %", "cached, %", "lag p99, ms"]
    rows = []
    for stage in stages:
        rates = stage.throughput
        verdict = stage.verdict if stage.is_stable is not False else f"{stage.verdict}, unstable"
        row = [stage.key if not stage.repeat else f"{stage.key} #{stage.repeat + 1}", verdict]
        row += [words.short(rates.all.req_s), words.short(rates.offered_req_s)]
        row += [words.short(rates.all.out_tok_s), words.short(rates.steady.out_tok_s)]
        row.append(words.short(rates.all.in_tok_s))
        for metric in ("ttft", "tpot", "itl"):
            row += [words.percentile_cell(stage, metric, p) for p in ("p50", "p99")]
        row += [words.percentile_cell(stage, "e2e", p, in_seconds=True) for p in ("p50", "p99")]
        row += [
            words.percent(error_rate(stage)),
            words.percent(stage.goodput.fraction) if stage.goodput.limits else words.NOTHING,
            words.percent(stage.tokens.cached_fraction),
            words.milliseconds(stage.generator.lag.p99),
        ]
        rows.append(row)
    return table(head, rows)


def _slo_table(result: Result) -> str:
    return table(
        ["limit", "stage", "value", "holds", "proven", "why"],
        [
            [s.expr, s.stage, limit_value(s), _yes(s.passed), _yes(s.proven), s.why or ""]
            for s in result.slo
        ],
    )


def _yes(value: bool) -> str:
    return "yes" if value else "no"


def _stage(stage: Stage, stages: Sequence[Stage]) -> str:
    name = stage.key if not stage.repeat else f"{stage.key}, run {stage.repeat + 1}"
    counts = stage.counts
    told = (
        f"{counts.planned} planned, {counts.sent} sent, {counts.ok} ok, {counts.failed} failed, "
        f"{counts.unfinished} unfinished, {counts.dropped} dropped, {counts.cancelled} cancelled"
    )
    lines = (told, waiting(stage, stages))
    parts = [f'<p class="quiet">{escape(line)}</p>' for line in lines]
    parts += [
        f'<p class="{stage.verdict}">{escape(reason)}</p>' for reason in stage.verdict_reasons
    ]
    parts += [f'<p class="quiet">{escape(remark)}</p>' for remark in remarks(stage)]
    if counts.by_class:
        parts.append(
            table(
                ["failure", "requests", "first message"],
                [
                    [kind, str(count), counts.messages.get(kind, "")]
                    for kind, count in sorted(counts.by_class.items())
                ],
            )
        )
    parts.append(_latency_table(stage))
    parts.append(_figures(charts.time_charts(stage)))
    return _section(name, "".join(parts))


def _latency_table(stage: Stage) -> str:
    rows = []
    for metric in _METRICS:
        latency = getattr(stage.latency, metric)
        populations = [("ok", latency.ok), ("all", latency.all), ("steady", latency.steady)]
        if latency.service is not None:
            populations.append(("service", latency.service))
        for population, summary in populations:
            if summary.n:
                numbers = [summary.mean, summary.sd, summary.min, summary.p50, summary.p90]
                numbers += [summary.p95, summary.p99, summary.p999, summary.max]
                cells = [words.milliseconds(number) for number in numbers]
                rows.append([metric, population, str(summary.n), *cells])
    head = [
        "ms",
        "population",
        "n",
        "mean",
        "sd",
        "min",
        "p50",
        "p90",
        "p95",
        "p99",
        "p99.9",
        "max",
    ]
    return table(head, rows)


def _aggregate_table(result: Result) -> str:
    rows = []
    for aggregate in result.aggregate:
        for name, numbers in aggregate.metrics.items():
            low, high = numbers.get("ci95") or (None, None)
            cells = [words.short(numbers.get(part)) for part in ("mean", "sd", "cv")]
            interval = f"{words.short(low)} to {words.short(high)}"
            rows.append([aggregate.key, name, str(aggregate.runs), *cells, interval])
    return table(["stage", "metric", "runs", "mean", "sd", "cv", "95 % interval"], rows)


def _configuration(result: Result) -> dict[str, str]:
    facts = {name: _shown(value) for name, value in result.config.items()}
    facts |= {f"meta: {name}": value for name, value in result.meta.items()}
    return {"command": " ".join(result.argv), **facts}


def _environment(result: Result) -> dict[str, str]:
    client, endpoint = result.client, result.endpoint
    return {
        "client": f"{client.host}, {client.cpu}, {client.cores} cores, {client.kernel}",
        "python": client.python,
        "tgi": result.tgi_version,
        "calibration": _shown(client.calibration),
        "server": _shown(endpoint.server),
        "capabilities": _shown(endpoint.capabilities),
        "template overhead": f"{_shown(endpoint.template_overhead)} tokens",
    }


def _shown(value: object) -> str:
    if value is None or value in ({}, []):
        return words.NOTHING
    return value if isinstance(value, str) else json.dumps(value, default=str)
