from __future__ import annotations

from typing import Any

import pytest

from tests.builders.bench import result, stage
from tgi_cli.runtime.bench.report.limits import limit_value
from tgi_cli.runtime.bench.report.terminal import render
from tgi_cli.runtime.bench.report.words import short
from tgi_cli.runtime.bench.result import Endpoint, Rates, SloOutcome


def row_of(text: str, key: str) -> str:
    return next(line for line in text.splitlines() if line.startswith(key + " "))


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (None, "-"),
        ("inf", "fail"),
        (0, "0"),
        (0.1234, "0.123"),
        (0.5, "0.5"),
        (1.234, "1.23"),
        (12.34, "12.3"),
        (123.4, "123"),
        (12345.6, "12,346"),
    ],
)
def test_numbers_have_three_digits_that_mean_something(value: float, expected: str) -> None:
    assert short(value) == expected


def test_a_percentile_that_few_values_prove_is_in_brackets() -> None:
    text = render(result(stage(8, num_ok=120), stage(4, num_ok=400)))

    assert "(" in row_of(text, "concurrency=8").partition(")")[2]
    assert "(" not in row_of(text, "concurrency=4").partition(")")[2]


def test_one_failure_is_enough_to_show_the_population_with_the_failures() -> None:
    text = render(result(stage(4, num_ok=400, num_failed=40)))

    assert "fail" in row_of(text, "concurrency=4")
    assert "concurrency=4: 40 http_429: Model is overloaded" in text


def test_what_is_wrong_stands_at_the_stage_and_in_the_head() -> None:
    text = render(
        result(
            stage(4, verdict="invalid", verdict_reasons=["CPU 95 % > 90 %"]),
            stage(9, kind="rate", is_stable=False),
        )
    )

    assert text.splitlines()[0].endswith("INVALID")
    assert row_of(text, "concurrency=4").endswith("INVALID")
    assert row_of(text, "rate=9").endswith("UNSTABLE")
    assert "concurrency=4: CPU 95 % > 90 %" in text


def test_slos_say_their_value_and_whether_it_is_proven() -> None:
    slo = SloOutcome(expr="ttft.p99<500ms", stage="rate=2", value=0.41, passed=True, proven=False)
    slo.why = "n 120 < 368"

    text = render(result(slo=[slo], exit_code=3, exit_reason="an SLO failed"))

    assert "SLO  ttft.p99<500ms  rate=2 ok, unproven (410 ms, n 120 < 368)" in text
    assert text.endswith("exit 3: an SLO failed\n")


@pytest.mark.parametrize(
    ("expr", "value", "shown"),
    [
        ("ttft_service.p50<1s", 0.0123, "12.3 ms"),
        ("error_rate<1%", 0.025, "2.5 %"),
        ("goodput>=0.95", 1.0, "100.0 %"),
        ("out_tok_s>=1000", 1234.5, "1,234"),
        ("ttft.p99<500ms", "inf", "fail"),
        ("server_queue.p50<1s", None, "-"),
    ],
)
def test_a_limits_value_has_the_unit_of_what_it_limits(expr: str, value: Any, shown: str) -> None:
    assert limit_value(SloOutcome(expr=expr, stage="rate=2", value=value, passed=True)) == shown


def test_the_head_says_the_load_and_the_lengths() -> None:
    lengths = {"input-tokens": "uniform:100..900", "output-tokens": None}
    of_file = {"dataset": "prompts.jsonl"}
    stages = [stage(1), stage(4, kind="rate")]

    made = render(result(*stages, config=lengths)).splitlines()[0]
    read = render(result(*stages, config=of_file)).splitlines()[0]

    assert "| smollm2-135m | concurrency, poisson | in uniform:100..900 out 128 | 1 worker" in made
    assert "| concurrency, poisson, dataset | 1 worker" in read


def test_the_steady_throughput_has_the_width_of_its_interval() -> None:
    one = stage(8, num_ok=60)
    one.throughput.steady = Rates(out_tok_s=200.0, ci95={"out_tok_s": (197.0, 203.0)})

    assert "128 (200 ±1.5%)" in render(result(one))
    assert "128 (200 +-1.5%)" in render(result(one), is_ascii=True)
    assert render(result(one), is_ascii=True).isascii()


def test_closed_loops_say_what_they_hide() -> None:
    assert "hide waiting" in render(result(stage(8)))
    assert "hide waiting" not in render(result(stage(8, kind="rate")))


def test_ascii_is_ascii_and_colour_is_asked_for() -> None:
    one = result(stage(8))

    assert render(one, is_ascii=True).isascii()
    assert "\x1b" not in render(one)
    assert "\x1b[32mVALID" in render(one, has_colour=True)


def test_text_from_outside_cannot_move_the_terminal() -> None:
    endpoint = Endpoint(url="http://x/\x1b[2J", protocol="tgi", model="a\nb")

    head = render(result(endpoint=endpoint)).splitlines()[0]

    assert "\x1b" not in head
    assert "a\ufffdb" in head
