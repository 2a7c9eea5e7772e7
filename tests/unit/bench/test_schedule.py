"""When requests leave: exact counts, the right gaps, and nothing that depends on the workers."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tgi_cli.runtime.bench.schedule import arrival_times, user_starts, user_stops
from tgi_cli.runtime.bench.stages import StageSpec
from tgi_cli.runtime.bench.streams import generator

_LONG_S = 400.0


def rate(value, **fields):
    return StageSpec(key="", kind="rate", value=value, **fields)


def ramp(start, stop, duration_s, **fields):
    fields = {"ramp_kind": "rate"} | fields
    return StageSpec(
        key="", kind="ramp", value=start, ramp_to=stop, duration_s=duration_s, **fields
    )


def times_of(spec, until_s, seed=1, **limits):
    return arrival_times(spec, generator(seed, "arrivals"), until_s=until_s, **limits)


def distance(samples, cumulative):
    """Return the Kolmogorov-Smirnov distance of samples from a distribution."""
    ordered = np.sort(samples)
    expected = cumulative(ordered)
    steps = np.arange(len(ordered) + 1) / len(ordered)
    return max((steps[1:] - expected).max(), (expected - steps[:-1]).max())


def critical(count):
    """Return the distance that a fitting distribution exceeds once in a thousand."""
    return 1.95 / math.sqrt(count)


def erlang2(rate):
    return lambda gaps: 1 - np.exp(-2 * rate * gaps) * (1 + 2 * rate * gaps)


@pytest.mark.parametrize("value", [1, 2.5, 7, 100, 333.3, 500])
@pytest.mark.parametrize("until_s", [1.0, 20.0, 61.0])
def test_a_constant_plan_has_exactly_rate_times_duration_requests(value, until_s):
    times = times_of(rate(value, arrival="constant"), until_s)

    assert len(times) == math.ceil(value * until_s - 1e-9)
    assert times[0] == 0.0
    np.testing.assert_allclose(np.diff(times), 1 / value, rtol=1e-6)


@pytest.mark.parametrize("value", [1, 3, 47, 500])
def test_poisson_gaps_are_exponential(value):
    times = times_of(rate(value), 30_000 / value)
    gaps = np.diff(times)

    assert abs(len(times) - 30_000) < 5 * math.sqrt(30_000)
    assert distance(gaps, lambda gap: 1 - np.exp(-value * gap)) < critical(len(gaps))


def test_gamma_gaps_have_their_shape_and_the_rate():
    times = times_of(rate(50, arrival="gamma", burstiness=2.0), _LONG_S)
    gaps = np.diff(times)

    assert distance(gaps, erlang2(50)) < critical(len(gaps))
    assert distance(gaps, lambda gap: 1 - np.exp(-50 * gap)) > critical(len(gaps))


def test_gamma_of_shape_below_one_comes_in_bursts():
    gaps = np.diff(times_of(rate(50, arrival="gamma", burstiness=0.25), _LONG_S))

    assert gaps.std() / gaps.mean() == pytest.approx(2.0, rel=0.05)
    assert gaps.mean() == pytest.approx(1 / 50, rel=0.05)


@pytest.mark.parametrize("workers", [1, 4])
def test_the_plan_does_not_depend_on_how_many_workers_share_it(workers):
    whole = times_of(rate(80), 100.0)

    shares = [whole[worker::workers] for worker in range(workers)]

    np.testing.assert_array_equal(np.sort(np.concatenate(shares)), whole)


def test_counts_are_not_rescaled():
    counts = [len(times_of(rate(10), 10.0, seed=seed)) for seed in range(400)]

    # A Poisson count has its mean as variance; a rescaled plan would have none.
    assert np.mean(counts) == pytest.approx(100, abs=2.5)
    assert np.var(counts) == pytest.approx(100, rel=0.25)


@given(st.sampled_from(["constant", "poisson", "gamma"]), st.floats(0.5, 60), st.floats(1.0, 4.0))
def test_a_longer_plan_begins_with_the_shorter_one(arrival, until_s, factor):
    spec = rate(7.3, arrival=arrival, burstiness=0.5)

    short, long = times_of(spec, until_s), times_of(spec, until_s * factor)

    np.testing.assert_array_equal(long[: len(short)], short)
    assert np.all(long[len(short) :] >= until_s - 1e-6)


def test_a_number_of_requests_cuts_the_plan():
    spec = rate(7.3)

    limited = times_of(spec, math.inf, max_count=10_001)

    assert len(limited) == 10_001
    np.testing.assert_array_equal(limited[:99], times_of(spec, 1000.0)[:99])


@pytest.mark.parametrize(("start", "stop"), [(1.0, 50.0), (50.0, 1.0), (0.0, 8.0), (8.0, 0.0)])
def test_a_constant_ramp_has_the_integral_of_its_rate(start, stop):
    spec = ramp(start, stop, 120.0, arrival="constant")

    times = times_of(spec, 120.0)

    # The k-th request leaves when the integral of the rate is k.
    integral = start * times + (stop - start) * times**2 / 240
    np.testing.assert_allclose(integral, np.arange(len(times)), atol=1e-6)
    assert len(times) == math.ceil((start + stop) * 60 - 1e-9)


def test_a_poisson_ramp_is_poisson_in_its_own_time():
    spec = ramp(10.0, 90.0, 300.0)

    times = times_of(spec, 300.0)

    own = 10 * times + 80 * times**2 / 600
    gaps = np.diff(own)
    assert distance(gaps, lambda gap: 1 - np.exp(-gap)) < critical(len(gaps))


def test_a_ramp_stays_at_its_last_rate():
    times = times_of(ramp(2.0, 10.0, 20.0, arrival="constant"), 40.0)

    after = times[times > 20.0]
    np.testing.assert_allclose(np.diff(after), 0.1, rtol=1e-6)
    assert len(after) == pytest.approx(200, abs=1)


def test_a_ramp_down_to_nothing_ends():
    times = times_of(ramp(10.0, 0.0, 20.0), 80.0)

    assert np.all(np.isfinite(times))
    assert times.max() <= 20.0


def test_arrivals_rise_and_repeat_with_the_seed():
    one, same, other = (times_of(rate(33), 30.0, seed=seed) for seed in (5, 5, 6))

    assert np.all(np.diff(one) >= 0)
    np.testing.assert_array_equal(one, same)
    assert not np.array_equal(one[:50], other[:50])


def test_users_start_spread_over_the_stagger():
    spec = StageSpec(key="", kind="concurrency", value=4.0)

    assert user_starts(spec, 2.0) == [0.0, 0.5, 1.0, 1.5]
    assert user_stops(spec) == [None] * 4


def test_users_of_a_rising_ramp_start_when_the_line_reaches_them():
    spec = ramp(2.0, 6.0, 8.0, ramp_kind="concurrency")

    assert user_starts(spec, 0.0) == [0.0, 0.0, 2.0, 4.0, 6.0, 8.0]
    assert user_stops(spec) == [None] * 6


def test_users_of_a_falling_ramp_stop_when_the_line_leaves_them():
    spec = ramp(5.0, 1.0, 8.0, ramp_kind="concurrency")

    assert user_starts(spec, 0.0) == [0.0] * 5
    assert user_stops(spec) == [None, 6.0, 4.0, 2.0, 0.0]
