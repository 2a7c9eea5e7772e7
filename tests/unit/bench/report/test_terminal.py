from __future__ import annotations

import pytest

from tests.builders.bench import result, stage
from tgi_cli.runtime.bench.report.terminal import render
from tgi_cli.runtime.bench.report.words import short
from tgi_cli.runtime.bench.result import Endpoint, SloOutcome


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

    text = render(result(slo=[slo], exit_code=3, exit_reason="an SLO failed"))

    assert "SLO  ttft.p99<500ms  rate=2 ok, unproven (0.41)" in text
    assert text.endswith("exit 3: an SLO failed\n")


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
