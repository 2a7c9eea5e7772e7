from __future__ import annotations

import math

from hypothesis import given
from hypothesis import strategies as st

from tgi_cli.runtime.bench.report.bars import bars, merge, sparkline
from tgi_cli.runtime.bench.shape import NUM_BINS, distribution_of

VALUES = st.lists(st.one_of(st.floats(1e-6, 1e4), st.just(math.inf)), max_size=300)


@given(VALUES)
def test_every_value_is_in_one_bin_or_infinite(values: list[float]) -> None:
    distribution = distribution_of(values)

    num_infinite = sum(map(math.isinf, values))
    assert distribution.num_infinite == num_infinite
    assert sum(distribution.counts) == len(values) - num_infinite
    for start, end, count in zip(
        distribution.edges, distribution.edges[1:], distribution.counts, strict=False
    ):
        inside = sum(start * (1 - 1e-9) <= value <= end * (1 + 1e-9) for value in values)
        assert count <= inside


@given(VALUES)
def test_quantiles_are_values_that_were_observed_and_rise(values: list[float]) -> None:
    quantiles = distribution_of(values).quantiles

    numbers = [math.inf if value == "inf" else value for _, value in quantiles]
    assert all(number in values for number in numbers)
    assert numbers == sorted(numbers)
    assert not values or numbers[-1] == max(values)


def test_nothing_and_only_failures_are_distributions_too() -> None:
    assert distribution_of([]).quantiles == []
    assert distribution_of([math.inf]).counts == []


@given(st.lists(st.integers(0, 1000), min_size=1, max_size=90), st.integers(1, 60))
def test_groups_lose_no_count(counts: list[int], width: int) -> None:
    groups = merge(counts, width)

    assert len(groups) == width
    assert sum(groups) == sum(counts)


def test_one_value_among_many_is_seen() -> None:
    drawn = bars(distribution_of([0.0011] * 5000 + [0.9]), 20)

    assert len(drawn) == 20
    assert drawn.count("█") == 1
    assert drawn.count("▁") == 1
    assert len(distribution_of([0.001, 1.0]).counts) == NUM_BINS


def test_a_sparkline_has_the_newest_values() -> None:
    assert sparkline([9.0, 0.0, 4.0, 8.0], 3) == " ▄█"
    assert sparkline([0.0, 4.0, 8.0], 3, is_ascii=True).isascii()
