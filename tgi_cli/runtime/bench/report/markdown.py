"""The table of stages for an issue or a pull request."""

from __future__ import annotations

from collections.abc import Sequence

from tgi_cli.runtime.bench.report import words
from tgi_cli.runtime.bench.report.cache_hits import cache_warning
from tgi_cli.runtime.bench.report.limits import limit_state
from tgi_cli.runtime.bench.report.terminal import plain, worst_verdict
from tgi_cli.runtime.bench.report.waiting import waiting
from tgi_cli.runtime.bench.result import Result, Stage
from tgi_cli.runtime.bench.stage_values import error_rate

_HEAD = (
    *("stage", "req/s", "out tok/s", "ttft p50 ms", "ttft p99 ms", "tpot p50 ms", "itl p99 ms"),
    *("e2e p99 s", "errors %", "lag p99 ms", "verdict"),
)


def render_markdown(result: Result) -> str:
    """Return a line about the run and a table; percentiles as in the terminal's report."""
    endpoint = result.endpoint
    rows = [line(_HEAD), line(["---"] * len(_HEAD))]
    rows += [line(_row(stage)) for stage in result.stages]
    head = (
        f"`tgi bench` of {code(endpoint.model or '?')} at {code(endpoint.url)} "
        f"({endpoint.protocol or '?'}), {result.started}: **{worst_verdict(result.stages)}**"
    )
    slos = [
        f"- {code(slo.expr)} {code(slo.stage)}: {'holds' if slo.passed else '**fails**'} "
        f"({limit_state(slo)})"
        for slo in result.slo
    ]
    waits = [f"- {plain(stage.key)}: {waiting(stage, result.stages)}" for stage in result.stages]
    warning = cache_warning(result)
    head = head if warning is None else f"**{code(warning)}**\n\n{head}"
    return "\n".join([head, "", *rows, "", *waits, *([""] if slos else []), *slos]) + "\n"


def code(text: str) -> str:
    """Return text from outside as code, which nothing in it can end."""
    return f"`{plain(text).replace('`', chr(39))}`"


def line(cells: Sequence[str]) -> str:
    """Return a line of a table."""
    return "| " + " | ".join(plain(cell).replace("|", r"\|") for cell in cells) + " |"


def _row(stage: Stage) -> list[str]:
    return [
        stage.key,
        words.short(stage.throughput.all.req_s),
        words.short(stage.throughput.all.out_tok_s),
        words.percentile_cell(stage, "ttft", "p50"),
        words.percentile_cell(stage, "ttft", "p99"),
        words.percentile_cell(stage, "tpot", "p50"),
        words.percentile_cell(stage, "itl", "p99"),
        words.percentile_cell(stage, "e2e", "p99", in_seconds=True),
        words.percent(error_rate(stage)),
        words.milliseconds(stage.generator.lag.p99),
        stage.verdict,
    ]
