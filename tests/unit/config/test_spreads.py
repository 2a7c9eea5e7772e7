"""Distributions that options name."""

from __future__ import annotations

import random
import statistics

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tgi_cli.runtime.config.parsers import duration, number, percentage
from tgi_cli.runtime.config.spreads import parse_spread


@pytest.mark.parametrize(
    ("text", "mean"),
    [
        ("20ms", 0.02),
        ("uniform:10ms..30ms", 0.02),
        ("exponential:20ms", 0.02),
        ("normal:20ms,sd=2ms", 0.02),
        ("lognormal:median=20ms,sigma=0.1", 0.0201),
        ("normal:20ms,sd=2ms,min=25ms", 0.025),
    ],
)
def test_draws_have_the_mean_that_was_asked_for(text: str, mean: float) -> None:
    spread = parse_spread(text, duration)
    rng = random.Random(7)

    drawn = [spread.draw(rng) for _ in range(4001)]

    assert statistics.fmean(drawn) == pytest.approx(mean, rel=0.05)


@given(
    center=st.floats(0.0, 100.0),
    width=st.floats(0.0, 100.0),
    low=st.floats(0.0, 50.0),
    extra=st.floats(0.0, 50.0),
    seed=st.integers(),
)
def test_draws_stay_between_min_and_max(
    center: float, width: float, low: float, extra: float, seed: int
) -> None:
    text = f"normal:{center:f},sd={width:f},min={low:f},max={low + extra:f}"
    spread = parse_spread(text, number)

    drawn = spread.draw(random.Random(seed))

    assert spread.low <= drawn <= spread.high


@pytest.mark.parametrize(
    "text",
    [
        "",
        "fast",
        "-5ms",
        "20ms,sd=3ms",
        "uniform:10ms",
        "uniform:30ms..10ms",
        "uniform:10ms..20ms,min=5ms",
        "normal:20ms",
        "normal:20ms,sd=5ms,min=9ms,max=3ms",
        "normal:20ms,sd=5ms,mode=3ms",
        "lognormal:20ms,sigma=1",
        "lognormal:median=20ms,sigma=-1",
        "zipf:20ms",
    ],
)
def test_what_is_no_distribution_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r".+"):
        parse_spread(text, duration)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("250us", 250e-6), ("500ms", 0.5), ("2s", 2.0), ("3", 3.0), ("1.5m", 90.0), ("1h", 3600.0)],
)
def test_times_have_units(text: str, seconds: float) -> None:
    assert duration(text) == pytest.approx(seconds)


@pytest.mark.parametrize("text", ["", "s", "1 s", "1_0s", "-1s", "1d", "inf", "1e3s", "٣s"])
def test_what_is_no_time_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is not a time"):
        duration(text)


def test_a_percentage_is_a_share() -> None:
    assert percentage("5%") == pytest.approx(0.05)
    assert percentage("0.05") == pytest.approx(0.05)
    with pytest.raises(ValueError, match="0% to 100%"):
        percentage("101%")
