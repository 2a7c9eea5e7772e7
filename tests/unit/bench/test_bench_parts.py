"""Small parts of a run: its command, its metrics page, who gets which request."""

from __future__ import annotations

import msgspec
import pytest
from typer.testing import CliRunner

from tgi_cli.app import app
from tgi_cli.runtime.bench.feeder import active_workers
from tgi_cli.runtime.bench.scrape import parse_metrics
from tgi_cli.runtime.bench.stage_run import part
from tgi_cli.runtime.bench.stages import StageSpec
from tgi_cli.runtime.bench.tally import bucket_of, percentile, seconds_of

RATE = StageSpec(key="r", kind="rate", value=2.0)


def test_a_bare_url_is_a_run() -> None:
    arguments = ["bench", "http://127.0.0.1:9", "--rate", "2", "--dry-run", "--seed", "1"]

    outcome = CliRunner().invoke(app, arguments)

    assert outcome.exit_code == 0, outcome.output
    assert "http://127.0.0.1:9" in outcome.output
    assert "rate=2" in outcome.output


def test_options_before_the_url_are_a_run_too() -> None:
    outcome = CliRunner().invoke(app, ["bench", "--dry-run", "http://127.0.0.1:9"])

    assert outcome.exit_code == 0, outcome.output
    assert "concurrency=16" in outcome.output


@pytest.mark.parametrize(
    "arguments",
    [["--rate", "2", "--concurrency", "1"], ["--rate", "fast"], ["http://a", "--url", "http://b"]],
)
def test_misuse_has_its_own_exit_code(arguments: list[str]) -> None:
    outcome = CliRunner().invoke(app, ["bench", *arguments, "--dry-run"])

    assert outcome.exit_code == 2, outcome.output


def test_an_endpoint_that_is_not_there_is_exit_code_6() -> None:
    outcome = CliRunner().invoke(app, ["bench", "http://127.0.0.1:9", "--quiet", "--no-save"])

    assert outcome.exit_code == 6, outcome.output


def test_series_of_a_metrics_page_are_summed_over_their_labels() -> None:
    page = (
        '# HELP x\ntgi_queue_size{a="1"} 2\ntgi_queue_size{a="2"} 3\ntgi_x_bucket{le="1"} 9\n'
        "process_x 4\nvllm:y_sum 1.5\ntgi_bad NaN\nnonsense\n"
    )

    assert parse_metrics(page) == {"tgi_queue_size": 5.0, "vllm:y_sum": 1.5}


def test_every_worker_has_a_user_or_room_below_the_cap() -> None:
    assert active_workers(RATE, 4) == 4
    assert active_workers(msgspec.structs.replace(RATE, max_concurrency=3), 4) == 3
    assert active_workers(StageSpec(key="c", kind="concurrency", value=2.0), 4) == 2
    assert active_workers(StageSpec(key="b", kind="burst", value=9.0), 4) == 1


def test_parts_of_a_number_sum_up_to_it() -> None:
    assert [part(7, index, 3) for index in range(4)] == [3, 2, 2, 0]


def test_a_live_percentile_is_within_a_bucket_of_the_value() -> None:
    assert seconds_of(bucket_of(50e6)) == pytest.approx(0.05, rel=0.1)
    assert percentile({bucket_of(1e6): 99, bucket_of(1e9): 1}, 0.99) == pytest.approx(1e-3, rel=0.1)
    assert percentile({}, 0.5) is None
