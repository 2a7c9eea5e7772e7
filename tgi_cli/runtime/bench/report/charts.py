"""Which charts a result has: against the load, by stage, and over time."""

from __future__ import annotations

import re
from collections.abc import Sequence

from tgi_cli.runtime.bench.report import words
from tgi_cli.runtime.bench.report.svg import Chart, Series
from tgi_cli.runtime.bench.result import Number, Result, Stage

_LIMIT = re.compile(r"\s*(ttft|e2e|tpot|itl)\.(p[\d.]+)\s*<=?\s*([\d.]+)\s*(ms|s)")


def load_charts(result: Result) -> list[Chart]:
    """Return the charts against the load, one pair for each kind of load there is."""
    charts = []
    kinds = dict.fromkeys(stage.load.kind for stage in result.stages)
    for kind in kinds:
        stages = [s for s in result.stages if s.load.kind == kind and _load(s) is not None]
        stages.sort(key=lambda stage: _load(stage) or 0.0)
        if not stages:
            continue
        name = "requests at once" if kind == "concurrency" else f"{kind} (requests/s)"
        knee = result.sweep.knee
        knees = [(knee, "knee")] if knee is not None and kind == "rate" else []
        for metric in ("ttft", "e2e"):
            charts.append(
                Chart(
                    title=f"{metric} against the load",
                    x_name=name,
                    y_name=f"{metric}, ms",
                    series=[_against_load(stages, metric, p) for p in ("p50", "p90", "p99")],
                    y_scale="log",
                    y_lines=_limits(result, metric),
                    x_lines=knees,
                )
            )
        charts.append(_throughput(stages, name, knees))
    return charts


def _load(stage: Stage) -> float | None:
    value = stage.load.value
    return float(value) if isinstance(value, int | float) else None


def _finite(value: Number) -> float | None:
    return float(value) if isinstance(value, int | float) else None


def _against_load(stages: Sequence[Stage], metric: str, name: str) -> Series:
    points = []
    for stage in stages:
        load = _load(stage)
        value = _finite(getattr(words.population(stage, metric), name))
        if load is not None and value is not None:
            points.append((load, value * 1e3))
    return Series(name, points)


def _limits(result: Result, metric: str) -> list[tuple[float, str]]:
    """Return the limits that SLOs set on a metric, in milliseconds, each once."""
    limits = {}
    for slo in result.slo:
        match = _LIMIT.match(slo.expr)
        if match is not None and match[1] == metric:
            value = float(match[3]) * (1.0 if match[4] == "ms" else 1e3)
            limits[value] = slo.expr.partition("@")[0].strip()
    return sorted(limits.items())


def _throughput(stages: Sequence[Stage], name: str, knees: list[tuple[float, str]]) -> Chart:
    def series(title: str, values: Sequence[Number], *, is_dashed: bool = False) -> Series:
        loads = [_load(stage) for stage in stages]
        points = [
            (load, number)
            for load, value in zip(loads, values, strict=True)
            if load is not None and (number := _finite(value)) is not None
        ]
        return Series(title, points, is_dashed=is_dashed)

    return Chart(
        title="throughput against the load",
        x_name=name,
        y_name="output tokens/s",
        series=[
            series("all of the window", [stage.throughput.all.out_tok_s for stage in stages]),
            series(
                "steady part",
                [stage.throughput.steady.out_tok_s for stage in stages],
                is_dashed=True,
            ),
        ],
        x_lines=knees,
    )


def distribution_charts(stages: Sequence[Stage]) -> list[Chart]:
    """Return, for each metric, how much of it is done by when, and the way up to the slowest."""
    charts = []
    for metric in ("ttft", "itl", "e2e"):
        found = [(s, s.distributions[metric]) for s in stages if metric in s.distributions]
        if not any(distribution.quantiles for _, distribution in found):
            continue
        steps = [
            (
                stage,
                [(q, number) for q, value in d.quantiles if (number := _finite(value)) is not None],
            )
            for stage, d in found
        ]
        charts.append(
            Chart(
                title=f"{metric}: share of the answers that are as fast",
                x_name=f"{metric}, ms",
                y_name="share, %",
                series=[
                    Series(_name(stage), [(value * 1e3, 100 * q) for q, value in points])
                    for stage, points in steps
                ],
                x_scale="log",
            )
        )
        charts.append(
            Chart(
                title=f"{metric}: the slowest one in so many",
                x_name="one answer in",
                y_name=f"{metric}, ms",
                series=[
                    Series(
                        _name(stage), [(1 / (1 - q), value * 1e3) for q, value in points if q < 1]
                    )
                    for stage, points in steps
                ],
                x_scale="log",
                y_scale="log",
            )
        )
    return charts


def _name(stage: Stage) -> str:
    return f"{stage.key} #{stage.repeat + 1}" if stage.repeat else stage.key


def time_charts(stage: Stage) -> list[Chart]:
    """Return what happened in a stage, bin by bin."""
    timeline = stage.timeline
    width = timeline.bin_s

    def over_time(name: str, values: Sequence[Number], factor: float = 1.0) -> Series:
        points = [
            ((i + 0.5) * width, factor * number)
            for i, value in enumerate(values)
            if (number := _finite(value)) is not None
        ]
        return Series(name, points)

    errors = [((i + 0.5) * width, float(n)) for i, n in enumerate(timeline.errors) if n]
    tokens = [count / width for count in timeline.out_tok]
    charts = [
        Chart(
            title="output over time",
            x_name="s",
            y_name="tokens/s",
            series=[over_time("output tokens/s", tokens)],
        ),
        Chart(
            title="requests at the server over time",
            x_name="s",
            y_name="requests",
            series=[
                over_time("in flight", timeline.in_flight),
                Series("failures", errors, is_points_only=True, colour=6),
            ],
        ),
        Chart(
            title="first token over time",
            x_name="s",
            y_name="ttft p50, ms",
            series=[over_time("ttft p50", timeline.ttft_p50, 1e3)],
        ),
    ]
    return [chart for chart in charts if any(series.points for series in chart.series)]
