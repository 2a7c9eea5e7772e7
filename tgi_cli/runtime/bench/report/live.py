"""The view of a running stage: drawn on a terminal, a line now and then, JSON, or nothing.

All of it goes to stderr: stdout holds only the report, so that it can be piped.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, TextIO

import msgspec

from tgi_cli.runtime.bench.live_counters import LiveCounters, LiveView
from tgi_cli.runtime.bench.report.bars import sparkline
from tgi_cli.runtime.bench.report.terminal import plain
from tgi_cli.runtime.bench.report.words import milliseconds, percent, short

if TYPE_CHECKING:
    from rich.console import RenderableType

_LINE_INTERVAL_S = 10.0
_JSON_INTERVAL_S = 1.0
_DRAWN_PER_S = 4
_SPARKLINE_WIDTH = 20

Clock = Callable[[], float]


def make_live_view(
    *,
    is_quiet: bool = False,
    is_json: bool = False,
    is_ascii: bool = False,
    has_colour: bool = True,
    out: TextIO | None = None,
) -> LiveView:
    """Return the view that the options and the terminal call for."""
    stream = sys.stderr if out is None else out
    if is_quiet:
        return SilentView()
    if is_json:
        return JsonView(stream)
    if stream.isatty():
        return DrawnView(stream, is_ascii=is_ascii, has_colour=has_colour)
    return LineView(stream)


class SilentView:
    def show(self, counters: LiveCounters) -> None: ...

    def note(self, text: str) -> None: ...

    def close(self) -> None: ...


class LineView:
    """A line each ten seconds and at each new phase, for logs."""

    def __init__(self, out: TextIO, clock: Clock = time.monotonic) -> None:
        self._out = out
        self._clock = clock
        self._shown_at = -_LINE_INTERVAL_S
        self._shown_phase = ("", "")

    def show(self, counters: LiveCounters) -> None:
        now, phase = self._clock(), (counters.stage_key, counters.phase)
        if now - self._shown_at >= _LINE_INTERVAL_S or phase != self._shown_phase:
            self._shown_at, self._shown_phase = now, phase
            self.note(line_of(counters))

    def note(self, text: str) -> None:
        print(plain(text), file=self._out, flush=True)

    def close(self) -> None: ...


class JsonView:
    """One object a second; notes are objects with the key `note`."""

    def __init__(self, out: TextIO, clock: Clock = time.monotonic) -> None:
        self._out = out
        self._clock = clock
        self._shown_at = -_JSON_INTERVAL_S

    def show(self, counters: LiveCounters) -> None:
        now = self._clock()
        if now - self._shown_at >= _JSON_INTERVAL_S:
            self._shown_at = now
            self._write(counters)

    def note(self, text: str) -> None:
        self._write({"note": text})

    def close(self) -> None: ...

    def _write(self, value: object) -> None:
        print(msgspec.json.encode(value).decode(), file=self._out, flush=True)


class DrawnView:
    """A block at the bottom of the terminal, drawn four times a second."""

    def __init__(self, out: TextIO, *, is_ascii: bool, has_colour: bool) -> None:
        from rich.console import Console
        from rich.live import Live

        console = Console(file=out, no_color=not has_colour, highlight=False)
        self._is_ascii = is_ascii
        self._live = Live(
            console=console, refresh_per_second=_DRAWN_PER_S, transient=True, auto_refresh=False
        )
        self._live.start()

    def show(self, counters: LiveCounters) -> None:
        self._live.update(draw(counters, is_ascii=self._is_ascii), refresh=True)

    def note(self, text: str) -> None:
        self._live.console.print(plain(text), markup=False)

    def close(self) -> None:
        self._live.stop()


def line_of(counters: LiveCounters) -> str:
    """Return the counters in one line."""
    return "  ".join(
        [
            f"{_stage(counters)} {counters.phase}",
            f"{_left(counters)}",
            f"sent {counters.num_sent} ok {counters.num_ok}{_failures(counters)}",
            f"in flight {counters.num_in_flight}",
            f"{short(counters.req_s)} req/s {short(counters.tok_s)} tok/s",
            f"ttft {milliseconds(counters.ttft_p50_s)}/{milliseconds(counters.ttft_p99_s)} ms",
        ]
    )


def draw(counters: LiveCounters, *, is_ascii: bool = False) -> RenderableType:
    """Return the block: where the run is, what came back, how fast, and how the client does."""
    from rich.table import Table
    from rich.text import Text

    grid = Table.grid(padding=(0, 2))
    planned = "" if counters.num_planned is None else f" of {counters.num_planned}"
    spark = sparkline(counters.tok_s_series, _SPARKLINE_WIDTH, is_ascii=is_ascii)
    cpus = " ".join(percent(share, digits=0) for share in counters.worker_cpu)
    rows = (
        (f"stage {_stage(counters)}", f"{counters.phase}, {_left(counters)}"),
        (
            "requests",
            f"sent {counters.num_sent}{planned}, in flight {counters.num_in_flight}, "
            f"ok {counters.num_ok}{_failures(counters)}",
        ),
        ("last 5 s", f"{short(counters.req_s)} req/s, {short(counters.tok_s)} tok/s  {spark}"),
        (
            "ms p50/p99",
            f"ttft {milliseconds(counters.ttft_p50_s)}/{milliseconds(counters.ttft_p99_s)}, "
            f"itl {milliseconds(counters.itl_p50_s)}/{milliseconds(counters.itl_p99_s)}",
        ),
        ("client", f"lag p99 {milliseconds(counters.lag_p99_s)} ms, CPU % {cpus or '-'}"),
    )
    for name, text in rows:
        grid.add_row(Text(name, style="cyan"), Text(text))
    return grid


def _stage(counters: LiveCounters) -> str:
    of = "" if counters.num_stages is None else f"/{counters.num_stages}"
    return f"{counters.stage_index + 1}{of} {plain(counters.stage_key)}"


def _left(counters: LiveCounters) -> str:
    if counters.time_left_s is None:
        return f"{counters.elapsed_s:.0f} s so far"
    return f"{counters.time_left_s:.0f} s left"


def _failures(counters: LiveCounters) -> str:
    parts = [f" {plain(kind)} {count}" for kind, count in sorted(counters.failures.items())]
    return "".join(parts)
