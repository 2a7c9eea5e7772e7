"""Tokens of a reply: the best source wins, sums are exact."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from tgi_cli.runtime.bench.counting import Deliveries, count_tokens, share


def made(
    texts: list[str], *, ids: int = 0, usage: list[int] | None = None, total: int | None = None
) -> Deliveries:
    ends, size = [], 0
    for text in texts:
        size += len(text)
        ends.append(size)
    return Deliveries(
        at=list(range(len(texts))),
        num_events=[1] * len(texts),
        num_ids=[ids] * len(texts),
        usage=usage or [-1] * len(texts),
        text_ends=ends,
        text="".join(texts),
        total=total,
    )


@given(st.integers(0, 10**6), st.lists(st.integers(0, 50), min_size=1, max_size=40))
def test_shares_sum_up_to_the_total_and_none_is_negative(total: int, weights: list[int]) -> None:
    parts = share(total, weights)

    assert sum(parts) == total
    assert min(parts) >= 0
    assert all(
        part == 0 for part, weight in zip(parts, weights, strict=True) if not weight
    ) or not (any(weights))


def test_tokens_that_are_named_count_as_they_are() -> None:
    assert count_tokens(made(["a", "b"], ids=3), len) == ([3, 3], "token_ids")


def test_a_count_that_goes_on_is_told_by_its_differences() -> None:
    deliveries = made(["a", "b", "c"], usage=[1, 3, 4], total=4)

    assert count_tokens(deliveries, len) == ([1, 2, 1], "usage_continuous")


def test_a_total_is_shared_by_the_length_of_the_pieces() -> None:
    deliveries = made(["aaaa", "bb"], total=3)

    assert count_tokens(deliveries, len) == ([2, 1], "usage_final")


def test_without_a_total_the_whole_text_is_counted_not_its_pieces() -> None:
    def count_words(text: str) -> int:
        return len(text.split())

    # Two pieces of one word each are one word together.
    assert count_tokens(made(["he", "llo"]), count_words) == ([1, 0], "tokenizer")


def test_without_anything_events_are_counted() -> None:
    assert count_tokens(made(["a", "b"]), None) == ([1, 1], "events")


def test_a_server_that_lies_about_its_events_is_believed_about_the_total() -> None:
    counts, source = count_tokens(made(["a", "b"], ids=1, total=10), len)

    assert (sum(counts), source) == (10, "usage_final")
