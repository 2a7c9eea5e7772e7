"""Each report says how long requests waited: in the client and, where known, in the server."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence

from tests.builders.bench import latency, result, stage, summary
from tgi_cli.runtime.bench.report.csv_file import render_csv
from tgi_cli.runtime.bench.report.html import render_html
from tgi_cli.runtime.bench.report.markdown import render_markdown
from tgi_cli.runtime.bench.report.terminal import render
from tgi_cli.runtime.bench.report.waiting import server_queue_estimate, waiting
from tgi_cli.runtime.bench.result import Generator, Stage, Summary

_UNKNOWN = "server_queue - (the server doesn't tell)"


def answering(value: float, ttfts: Sequence[float], *, repeat: int = 0, kind: str = "") -> Stage:
    """A stage whose first tokens came so many seconds after the sending."""
    one = stage(value, kind=kind or "concurrency", repeat=repeat)
    one.latency.ttft = latency(ttfts)
    return one


def test_the_clients_own_waits_are_in_every_report() -> None:
    one = stage(4)
    one.generator = Generator(
        lag=summary([0.0]), client_queue=summary([0.25, 0.5]), connect=summary([0.0, 0.002])
    )
    line = f"client_queue p99 500 ms, connect p99 2.00 ms, {_UNKNOWN}"

    reports = [render(result(one)), render_markdown(result(one)), render_html(result(one))]

    assert waiting(one, [one]) == line
    assert all(line.split(" (")[0] in report for report in reports)


def test_a_queue_that_the_server_tells_of_is_shown_as_it_is_told() -> None:
    by_request, by_histogram = stage(1), stage(4)
    by_request.latency.server_queue = summary([0.01, 0.02, 0.3])
    by_histogram.latency.server_queue = Summary(n=9, mean=0.0421)

    lines = [waiting(one, [by_request, by_histogram]) for one in (by_request, by_histogram)]
    rows = list(csv.DictReader(io.StringIO(render_csv(result(by_request, by_histogram)))))

    assert lines[0].endswith("server_queue p50 20.0 ms, p99 300 ms")
    assert lines[1].endswith("server_queue mean 42.1 ms")
    assert [row["server_queue_p99"] for row in rows] == ["0.3", ""]
    assert rows[1]["server_queue_mean"] == "0.0421"


def test_an_untold_queue_is_estimated_against_a_single_user_and_called_an_estimate() -> None:
    alone, loaded = answering(1, [0.03, 0.05, 0.2]), answering(8, [0.04, 0.15, 0.95])

    line = waiting(loaded, [alone, loaded])

    assert line.endswith(
        "server_queue p50 100.0 ms, p99 900 ms (an estimate: ttft_service less its median at "
        "concurrency=1)"
    )
    assert line in render(result(alone, loaded))
    assert loaded.latency.server_queue is None  # nothing that was estimated is stored
    assert waiting(alone, [alone, loaded]).endswith(_UNKNOWN)


def test_an_estimate_never_falls_below_no_wait_at_all() -> None:
    alone, loaded = answering(1, [0.05]), answering(2, [0.03, 0.06])

    p50, p99 = server_queue_estimate(loaded, [alone, loaded])

    assert p50 == 0.0
    assert p99 is not None
    assert p99 > 0


def test_each_repeat_is_held_against_the_single_user_of_its_own() -> None:
    first, second = answering(1, [0.1]), answering(1, [0.2], repeat=1)
    loaded = answering(4, [0.5], repeat=1)

    assert server_queue_estimate(loaded, [first, second, loaded])[0] == 0.5 - 0.2
    assert server_queue_estimate(loaded, [first, loaded])[0] == 0.5 - 0.1


def test_without_a_single_user_or_its_answers_nothing_is_estimated() -> None:
    silent, loaded, rate = answering(1, []), answering(8, [0.4]), answering(1, [0.1], kind="rate")

    for stages in ([silent, loaded], [rate, loaded], [loaded]):
        assert waiting(loaded, stages).endswith(_UNKNOWN)
