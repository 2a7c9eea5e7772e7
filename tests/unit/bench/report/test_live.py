from __future__ import annotations

import io
import json

import pytest

from tgi_cli.runtime.bench.live_counters import LiveCounters
from tgi_cli.runtime.bench.report.live import (
    DrawnView,
    JsonView,
    LineView,
    SilentView,
    make_live_view,
)


def counters(**changes: object) -> LiveCounters:
    fields = {
        "stage_key": "rate=4",
        "stage_index": 1,
        "num_stages": 3,
        "phase": "measure",
        "time_left_s": 12.4,
        "elapsed_s": 7.6,
        "num_planned": 48,
        "num_sent": 31,
        "num_in_flight": 5,
        "num_ok": 25,
        "failures": {"http_429": 1},
        "req_s": 3.9,
        "tok_s": 512.0,
        "tok_s_series": [100.0, 300.0, 512.0],
        "ttft_p50_s": 0.041,
        "ttft_p99_s": 0.2,
        "lag_p99_s": 0.0003,
        "worker_cpu": [0.31],
    }
    return LiveCounters(**{**fields, **changes})  # type: ignore[arg-type]


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(
    ("options", "out", "kind"),
    [
        ({"is_quiet": True}, Terminal(), SilentView),
        ({"is_json": True}, Terminal(), JsonView),
        ({}, io.StringIO(), LineView),
        ({}, Terminal(), DrawnView),
    ],
)
def test_the_view_follows_the_options_and_the_terminal(
    options: dict[str, bool], out: io.StringIO, kind: type
) -> None:
    view = make_live_view(**options, out=out)
    view.close()

    assert isinstance(view, kind)


def test_a_log_has_a_line_each_ten_seconds_and_at_each_new_phase() -> None:
    now, out = [0.0], io.StringIO()
    view = LineView(out, clock=lambda: now[0])
    for now[0] in (0.0, 4.0, 9.9, 10.0, 11.0):
        view.show(counters())
    view.show(counters(phase="drain"))

    lines = out.getvalue().splitlines()
    assert len(lines) == 3
    assert lines[0].startswith("2/3 rate=4 measure  12 s left  sent 31 ok 25 http_429 1")
    assert "drain" in lines[2]


def test_json_is_an_object_a_second() -> None:
    now, out = [0.0], io.StringIO()
    view = JsonView(out, clock=lambda: now[0])
    for now[0] in (0.0, 0.25, 0.99, 1.0):
        view.show(counters())
    view.note("the server says: stop")

    objects = [json.loads(line) for line in out.getvalue().splitlines()]
    assert [each.get("num_sent") for each in objects] == [31, 31, None]
    assert objects[2] == {"note": "the server says: stop"}


def test_what_is_drawn_has_every_counter_and_lets_nothing_from_outside_through() -> None:
    out = Terminal()
    view = make_live_view(out=out, has_colour=False)
    view.show(counters(stage_key="a\x1b[2Jb", num_stages=None, time_left_s=None))
    view.note("[bold]not markup[/]")
    view.close()

    drawn = out.getvalue()
    for words in ("2 a�[2Jb", "8 s so far", "sent 31 of 48", "512 tok/s", "ttft 41.0/200", "31"):
        assert words in drawn, words
    assert "[bold]not markup[/]" in drawn
