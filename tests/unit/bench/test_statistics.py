"""Percentiles, intervals and cuts, held against their definitions and against printed tables."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tgi_cli.runtime.bench.distributions import (
    binomial_quantile_ranks,
    num_values_for_ranks,
    t_probability,
    t_quantile,
)
from tgi_cli.runtime.bench.statistics import (
    PERCENTILES,
    batch_means,
    mean_interval,
    mser5_cut,
    nearest_rank,
    ratio_interval,
    relative_half_width,
    slope_interval,
    summarize,
    welch_interval,
)

latencies = st.floats(0, 1e4) | st.just(math.inf)


def exact_binomial(n: int, permille: int) -> list[Fraction]:
    """P(X <= k) for k from 0 to n, in whole numbers."""
    q = Fraction(permille, 1000)
    total, cumulative = Fraction(0), []
    for k in range(n + 1):
        total += math.comb(n, k) * q**k * (1 - q) ** (n - k)
        cumulative.append(total)
    return cumulative


@given(st.lists(latencies, min_size=1, max_size=300), st.sampled_from(sorted(PERCENTILES)))
def test_percentile_is_the_smallest_value_that_enough_values_do_not_exceed(values, name):
    share = Fraction(PERCENTILES[name], 1000)

    summary = summarize(np.array(values))

    expected = min(
        value for value in values if sum(one <= value for one in values) >= share * len(values)
    )
    point = getattr(summary, "p999" if name == "p99.9" else name)
    assert point == ("inf" if math.isinf(expected) else expected)


@given(st.lists(latencies, min_size=1, max_size=60), st.integers(0, 59))
def test_a_failure_never_makes_a_percentile_better(values, index):
    failed = list(values)
    failed[index % len(values)] = math.inf

    before, after = summarize(np.array(values)), summarize(np.array(failed))

    for name in ("p50", "p90", "p95", "p99", "p999", "mean", "max"):
        assert float(getattr(after, name)) >= float(getattr(before, name))


@pytest.mark.parametrize(("n", "rank"), [(1, 1), (999, 999), (1000, 999), (1001, 1000), (7, 7)])
def test_rank_of_p99_9_is_exact_where_floats_would_round(n, rank):
    assert nearest_rank(n, 999) == rank


@pytest.mark.parametrize("permille", sorted(PERCENTILES.values()))
@pytest.mark.parametrize("n", [1, 5, 6, 29, 59, 72, 100, 367, 368, 401])
def test_ranks_of_a_percentile_are_the_narrowest_with_tails_below_a_fortieth(n, permille):
    # Fewer than `rank` values lie below the quantile with probability at_most[rank - 1].
    at_most, tail = exact_binomial(n, permille), Fraction(1, 40)
    lows = [rank for rank in range(1, n + 1) if at_most[rank - 1] <= tail]
    highs = [rank for rank in range(1, n + 1) if at_most[rank - 1] >= 1 - tail]

    ranks = binomial_quantile_ranks(n, permille, 0.95)

    assert ranks == ((max(lows), min(highs)) if lows and highs else None)


def test_p99_has_an_interval_from_368_values_on():
    assert binomial_quantile_ranks(367, 990, 0.95) is None
    assert binomial_quantile_ranks(368, 990, 0.95) == (360, 368)


@pytest.mark.parametrize(
    ("permille", "needed"), [(500, 6), (900, 36), (950, 72), (990, 368), (999, 3688)]
)
def test_an_interval_begins_at_the_number_of_values_that_is_said_to_be_needed(permille, needed):
    assert num_values_for_ranks(permille, 0.95) == needed
    assert binomial_quantile_ranks(needed - 1, permille, 0.95) is None
    assert binomial_quantile_ranks(needed, permille, 0.95) is not None


def test_ranks_of_a_million_values_agree_with_the_normal_limit():
    low, high = binomial_quantile_ranks(1_000_000, 990, 0.95)

    half = 1.96 * math.sqrt(1_000_000 * 0.99 * 0.01)
    assert low == pytest.approx(990_000 - half, abs=2)
    assert high == pytest.approx(990_000 + half, abs=2)


# Fisher and Yates, Statistical Tables, table III: two-sided 5 % and 1 %.
@pytest.mark.parametrize(
    ("df", "five", "one"),
    [
        (1, 12.7062, 63.6567),
        (2, 4.30265, 9.92484),
        (4, 2.77645, 4.60409),
        (9, 2.26216, 3.24984),
        (19, 2.09302, 2.86093),
        (30, 2.04227, 2.75000),
        (120, 1.97993, 2.61742),
        (1e7, 1.95996, 2.57583),
    ],
)
def test_t_quantiles_are_those_of_the_tables(df, five, one):
    assert t_quantile(0.975, df) == pytest.approx(five, rel=5e-6)
    assert t_quantile(0.995, df) == pytest.approx(one, rel=5e-6)


@given(st.floats(0.6, 0.9995), st.floats(1, 500))
def test_t_quantile_undoes_t_probability(probability, df):
    t = t_quantile(probability, df)

    assert t_probability(t, df) == pytest.approx(probability, abs=1e-12)
    assert t_quantile(1 - probability, df) == pytest.approx(-t, rel=1e-9)


def test_interval_of_a_mean_is_students():
    # Two values: half the width is 12.706 times half their distance.
    assert mean_interval([3.0, 5.0]) == pytest.approx((4 - 12.7062047, 4 + 12.7062047))
    assert mean_interval([3.0]) is None
    assert mean_interval([3.0, math.inf]) is None


def test_interval_of_a_mean_holds_it_nineteen_times_in_twenty():
    random = np.random.default_rng(7)
    runs = random.exponential(size=(2000, 41))

    intervals = [mean_interval(run) for run in runs]

    share = sum(low < 1 < high for low, high in intervals) / len(intervals)
    assert 0.91 < share < 0.97  # a little below 95 %: the values are skewed


def test_batches_are_twenty_equal_parts_in_time():
    means = batch_means(np.arange(47.0))

    assert list(means) == [0.5 + 2 * k for k in range(20)]
    assert list(batch_means([1.0, 5.0])) == [1.0, 5.0]


def test_half_width_is_unknown_until_there_are_twenty_values():
    assert relative_half_width([1.0] * 19) is None
    assert relative_half_width([0.0] * 20) is None
    assert relative_half_width([2.0] * 20) == 0


def test_half_width_shrinks_as_values_come_in():
    random = np.random.default_rng(3)
    series = random.normal(100, 10, size=4000)

    early, late = relative_half_width(series[:40]), relative_half_width(series)

    assert 0 < late < early / 4


def test_slope_of_noise_has_zero_in_its_interval_and_that_of_a_ramp_has_not():
    random = np.random.default_rng(5)
    times = np.arange(23.0)
    noise = random.normal(size=23)

    flat, rising = slope_interval(times, noise), slope_interval(times, noise + 3 * times)

    assert flat[0] < 0 < flat[1]
    assert rising[0] > 2
    assert slope_interval(times[:2], noise[:2]) is None
    assert slope_interval(np.ones(5), np.arange(5.0)) is None


def test_welch_is_as_in_his_example():
    # Fisher's sleep data, as in R's t.test(extra ~ group): t = -1.8608, df = 17.776.
    first = [0.7, -1.6, -0.2, -1.2, -0.1, 3.4, 3.7, 0.8, 0.0, 2.0]
    second = [1.9, 0.8, 1.1, 0.1, -0.1, 4.4, 5.5, 1.6, 4.6, 3.4]

    interval = welch_interval(second, first)

    assert interval == pytest.approx((-3.3654832, 0.2054832), abs=1e-6)
    assert welch_interval([1.0], [1.0, 2.0]) is None


def test_ratio_of_runs_is_judged_on_a_scale_of_factors():
    interval = ratio_interval([100.0, 101.0, 99.0], [110.0, 111.0, 109.0])

    assert interval[0] < 1.1 < interval[1]
    assert interval[0] > 1.05
    assert ratio_interval([0.0, 1.0], [1.0, 1.0]) is None
    assert ratio_interval([], [1.0, 1.0]) is None


def naive_mser5_cut(values: list[float]) -> int:
    batches = [sum(values[k : k + 5]) / 5 for k in range(0, len(values) // 5 * 5, 5)]
    errors = []
    for cut in range(len(batches) // 2 + 1):
        rest = batches[cut:]
        mean = sum(rest) / len(rest)
        errors.append(sum((value - mean) ** 2 for value in rest) / len(rest) ** 2)
    best = min(errors)
    return 5 * next(cut for cut, error in enumerate(errors) if error <= best * (1 + 1e-9) + 1e-12)


@given(st.lists(st.integers(0, 50), min_size=10, max_size=120))
def test_mser5_cuts_where_the_rest_has_the_smallest_error(values):
    cut = mser5_cut([float(value) for value in values])

    expected = naive_mser5_cut([float(value) for value in values])
    assert cut % 5 == 0
    assert cut <= len(values) / 2 + 5
    # Equal errors may fall to either cut; the error itself is the same.
    assert _mser(values, cut) == pytest.approx(_mser(values, expected), abs=1e-9)


def _mser(values: list[int], cut: int) -> float:
    batches = [sum(values[k : k + 5]) / 5 for k in range(0, len(values) // 5 * 5, 5)][cut // 5 :]
    return float(np.var(batches) / len(batches))


def test_mser5_cuts_off_a_cold_start_but_never_more_than_half():
    random = np.random.default_rng(1)
    warm = random.normal(1, 0.05, size=203)

    assert mser5_cut(np.concatenate((np.linspace(9, 1, 40), warm))) in range(30, 61)
    assert mser5_cut(np.linspace(9, 1, 100)) <= 50
    assert mser5_cut([5.0] * 9) == 0
