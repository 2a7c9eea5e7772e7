from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from tgi_cli.runtime.router.exposition import Histogram, Value, number_text


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_numbers_read_as_what_they_were_and_have_no_exponent(value: float) -> None:
    text = number_text(value)

    assert float(text) == value
    assert "e" not in text.lower()
    assert not text.endswith(".0")


def test_a_series_is_its_name_its_labels_and_its_number() -> None:
    value = Value("tgi_x", (("err", "dropped"),))

    value.number += 2.5

    assert value.lines() == ['tgi_x{err="dropped"} 2.5']


def test_a_bucket_holds_what_is_at_most_its_bound() -> None:
    histogram = Histogram("tgi_h", (("method", "decode"),), (0.5, 1.0, 40.95))

    for observed in (0.5, 0.75, 1.0, 7.0, 1e9):
        histogram.observe(observed)

    assert histogram.lines() == [
        'tgi_h_bucket{method="decode",le="0.5"} 1',
        'tgi_h_bucket{method="decode",le="1"} 3',
        'tgi_h_bucket{method="decode",le="40.95"} 4',
        'tgi_h_bucket{method="decode",le="+Inf"} 5',
        'tgi_h_sum{method="decode"} 1000000009.25',
        'tgi_h_count{method="decode"} 5',
    ]


@given(st.lists(st.tuples(st.floats(0, 20), st.integers(1, 9)), max_size=13))
def test_buckets_are_what_counting_by_hand_gives(observed: list[tuple[float, int]]) -> None:
    bounds = (0.25, 3.0, 17.0)
    histogram = Histogram("h", (), bounds)
    for value, times in observed:
        histogram.observe(value, times)

    counts = [int(line.rpartition(" ")[2]) for line in histogram.lines()[:-2]]

    all_values = [value for value, times in observed for _ in range(times)]
    by_hand = [sum(value <= bound for value in all_values) for bound in bounds]
    assert counts == [*by_hand, len(all_values)]
