"""Line charts as inline SVG: axes that choose their own ticks, series of points, legends.

Colours are the page's (`--c0`, `--c1`, …), so that light and dark are its matter. Every point has
its words in `data-tip`, which the page's script shows. Nothing here knows what is drawn.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from html import escape
from typing import Literal

Format = Callable[[float], str]
Scale = Literal["linear", "log"]

WIDTH, HEIGHT = 560, 300
_LEFT, _RIGHT, _TOP, _BOTTOM = 64, 16, 16, 44
_MAX_POINTS_WITH_DOTS = 80
NUM_COLOURS = 8


@dataclass(frozen=True, slots=True)
class Series:
    name: str
    points: Sequence[tuple[float, float]]  # in ascending x; infinite y aren't drawn
    is_dashed: bool = False
    is_points_only: bool = False
    colour: int | None = None  # of the page's; None: by position


@dataclass(frozen=True, slots=True)
class Chart:
    title: str
    x_name: str
    y_name: str
    series: Sequence[Series]
    x_scale: Scale = "linear"
    y_scale: Scale = "linear"
    x_format: Format = field(default=lambda value: f"{value:,.4g}")  # of ticks and tips
    y_format: Format = field(default=lambda value: f"{value:,.4g}")
    y_lines: Sequence[tuple[float, str]] = ()  # horizontal lines, such as an SLO's limit
    x_lines: Sequence[tuple[float, str]] = ()


@dataclass(frozen=True, slots=True)
class _Axis:
    low: float
    high: float
    start: float  # pixel of `low`
    end: float
    scale: Scale

    def at(self, value: float) -> float:
        low, high = self.low, self.high
        if self.scale == "log":
            low, high, value = math.log(low), math.log(high), math.log(max(value, self.low))
        share = (value - low) / (high - low)
        return self.start + share * (self.end - self.start)

    def ticks(self) -> list[float]:
        return (
            _log_ticks(self.low, self.high) if self.scale == "log" else _ticks(self.low, self.high)
        )


def render(chart: Chart) -> str:
    """Return the chart as a figure; one that says so if there is nothing to draw."""
    points = [
        point for series in chart.series for point in series.points if _is_drawn(chart, point)
    ]
    title = f"<figcaption>{escape(chart.title)}</figcaption>"
    if not points:
        return f'<figure>{title}<p class="none">nothing to draw</p></figure>'
    x = _axis(
        [p[0] for p in points] + [v for v, _ in chart.x_lines], chart.x_scale, _LEFT, WIDTH - _RIGHT
    )
    y = _axis(
        [p[1] for p in points] + [v for v, _ in chart.y_lines],
        chart.y_scale,
        HEIGHT - _BOTTOM,
        _TOP,
    )
    parts = [*_grid(chart, x, y), *_lines(chart, x, y)]
    for index, series in enumerate(chart.series):
        parts += _series(chart, series, x, y, index if series.colour is None else series.colour)
    label, body = escape(chart.title), "".join(parts)
    image = f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{label}">{body}</svg>'
    return f"<figure>{title}{image}{_legend(chart)}</figure>"


def _is_drawn(chart: Chart, point: tuple[float, float]) -> bool:
    is_above = (chart.x_scale == "linear" or point[0] > 0) and (
        chart.y_scale == "linear" or point[1] > 0
    )
    return is_above and all(map(math.isfinite, point))


def _axis(values: Sequence[float], scale: Scale, start: float, end: float) -> _Axis:
    low, high = min(values), max(values)
    if scale == "log":
        low, high = (low / 1.15, high * 1.15) if low < high else (low / 2, high * 2)
    else:
        low, high = min(low, 0.0), max(high, 0.0) * 1.05
        high = high if high > low else 1.0
    return _Axis(low, high, start, end, scale)


def _ticks(low: float, high: float) -> list[float]:
    rough = (high - low) / 5
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(s * power for s in (1, 2, 2.5, 5, 10) if s * power >= rough)
    first = math.ceil(low / step - 1e-9)
    last = math.floor(high / step + 1e-9)
    return [i * step for i in range(first, last + 1)]


def _log_ticks(low: float, high: float) -> list[float]:
    span = high / low
    steps = (1.0,) if span > 1e4 else (1.0, 2.0, 5.0) if span > 5 else (1, 1.5, 2, 3, 4, 5, 6, 8)
    first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
    ticks = [step * 10.0**power for power in range(first, last + 1) for step in steps]
    return [tick for tick in ticks if low <= tick <= high] or [low, high]


def _grid(chart: Chart, x: _Axis, y: _Axis) -> list[str]:
    bottom, left, right = HEIGHT - _BOTTOM, _LEFT, WIDTH - _RIGHT
    parts = []
    for tick in y.ticks():
        at = y.at(tick)
        parts.append(_rule("grid", left, at, right, at))
        parts.append(_text("tick", left - 6, at + 4, chart.y_format(tick), "end"))
    for tick in x.ticks():
        at = x.at(tick)
        parts.append(_rule("grid", at, _TOP, at, bottom))
        parts.append(_text("tick", at, bottom + 16, chart.x_format(tick), "middle"))
    parts.append(_text("name", (left + right) / 2, HEIGHT - 8, chart.x_name, "middle"))
    parts.append(
        f'<text class="name" transform="translate(14 {(bottom + _TOP) / 2:.0f}) rotate(-90)" '
        f'text-anchor="middle">{escape(chart.y_name)}</text>'
    )
    return parts


def _lines(chart: Chart, x: _Axis, y: _Axis) -> list[str]:
    bottom, left, right = HEIGHT - _BOTTOM, _LEFT, WIDTH - _RIGHT
    parts = []
    for value, name in chart.y_lines:
        at = y.at(value)
        parts += [_rule("limit", left, at, right, at), _text("limit", right, at - 4, name, "end")]
    for value, name in chart.x_lines:
        at = x.at(value)
        parts.append(_rule("limit", at, _TOP, at, bottom))
        parts.append(_text("limit", at + 4, _TOP + 10, name, "start"))
    return parts


def _rule(kind: str, x1: float, y1: float, x2: float, y2: float) -> str:
    return f'<line class="{kind}" x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}"/>'


def _text(kind: str, x: float, y: float, words: str, anchor: str) -> str:
    place = f'x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}"'
    return f'<text class="{kind}" {place}>{escape(words)}</text>'


def _series(chart: Chart, series: Series, x: _Axis, y: _Axis, colour: int) -> list[str]:
    drawn = [point for point in series.points if _is_drawn(chart, point)]
    if not drawn:
        return []
    style = f"--c:var(--c{colour % NUM_COLOURS})"
    parts = []
    if not series.is_points_only:
        path = " ".join(f"{x.at(px):.1f},{y.at(py):.1f}" for px, py in drawn)
        dash = ' stroke-dasharray="5 4"' if series.is_dashed else ""
        parts.append(f'<polyline class="line" style="{style}" points="{path}"{dash}/>')
    has_dots = series.is_points_only or len(drawn) <= _MAX_POINTS_WITH_DOTS
    for px, py in drawn:
        tip = escape(f"{series.name}: {chart.y_format(py)} at {chart.x_format(px)} {chart.x_name}")
        kind = "dot" if has_dots else "dot quiet"
        parts.append(
            f'<circle class="{kind}" style="{style}" cx="{x.at(px):.1f}" cy="{y.at(py):.1f}" r="3" '
            f'data-tip="{tip}"/>'
        )
    return parts


def _legend(chart: Chart) -> str:
    if len(chart.series) < 2:
        return ""
    items = []
    for index, series in enumerate(chart.series):
        colour = index if series.colour is None else series.colour
        style = f"--c:var(--c{colour % NUM_COLOURS})"
        items.append(f'<li style="{style}">{escape(series.name)}</li>')
    return f'<ul class="legend">{"".join(items)}</ul>'
