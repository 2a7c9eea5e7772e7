from __future__ import annotations

import math
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tgi_cli.runtime.config import parsers
from tgi_cli.runtime.config.options import KvCacheDtype, Quantize
from tgi_cli.runtime.config.parsers import Parser
from tgi_cli.runtime.config.settings import SETTINGS

NUMBERS = (parsers.number, parsers.share, parsers.part, parsers.ratio, parsers.scale)
PARSERS: list[Parser] = list(dict.fromkeys(setting.parse for setting in SETTINGS))


@pytest.mark.parametrize("parse", PARSERS)
@given(text=st.text(max_size=40))
def test_any_text_is_read_or_refused_in_one_line(parse: Parser, text: str) -> None:
    try:
        parse(text)
    except ValueError as exc:
        assert "\n" not in str(exc)  # noqa: PT017 - most texts are refused, some are not


@given(number=st.integers(0, (1 << 63) - 1))
def test_counts_are_read_as_they_are_written(number: int) -> None:
    assert parsers.count(str(number)) == number


def test_batch_sizes_above_0_count() -> None:
    assert parsers.batch_sizes("1, 0,-3,77") == (1, 77)
    with pytest.raises(ValueError, match="is not a whole number"):
        parsers.batch_sizes("1,x")


@pytest.mark.parametrize("text", ["-1", "+1", "1_000", " 7", "1e3", "\u0663", "", str(1 << 63)])
def test_what_is_no_count_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"is not a whole number|is more than"):
        parsers.count(text)


def test_a_number_of_a_million_digits_is_refused_with_a_short_text() -> None:
    with pytest.raises(ValueError, match="is more than") as caught:
        parsers.count("9" * 1_000_000)

    assert len(str(caught.value)) < 200


@given(number=st.floats(allow_nan=False, allow_infinity=False))
def test_finite_numbers_are_read_as_they_are_written(number: float) -> None:
    assert parsers.number(repr(number)) == number


@pytest.mark.parametrize("parse", NUMBERS)
@pytest.mark.parametrize("text", ["nan", "inf", "-inf", "1_0", " 1", "1 ", "one", ""])
def test_what_is_no_number_is_refused(parse: Parser, text: str) -> None:
    with pytest.raises(ValueError, match="is not a number"):
        parse(text)


@pytest.mark.parametrize(
    ("parse", "low", "high"),
    [
        (parsers.share, math.nextafter(0, 1), 1.0),
        (parsers.part, math.nextafter(0, 1), math.nextafter(1, 0)),
        (parsers.ratio, 0.0, 1e300),
        (parsers.scale, 1e-3, 1e4),
    ],
)
def test_numbers_have_their_bounds(parse: Parser, low: float, high: float) -> None:
    assert parse(repr(low)) == low
    assert parse(repr(high)) == high
    with pytest.raises(ValueError, match=r"is "):
        parse(repr(low - 1e-3))


@pytest.mark.parametrize("values", [get_args(Quantize), get_args(KvCacheDtype)])
def test_choices_take_hyphens_and_underscores(values: tuple[str, ...]) -> None:
    parse = parsers.choice(*values)

    for value in values:
        assert parse(value.replace("_", "-")) == value
        assert parse(value.replace("-", "_")) == value


@given(entries=st.lists(st.text("abc:/._-", min_size=1), max_size=5))
def test_lists_are_joined_by_commas(entries: list[str]) -> None:
    assert parsers.names(" , ".join(entries)) == tuple(entries)


@pytest.mark.parametrize(
    ("text", "expected"),
    [("7", 7), ("5GB", 5_000_000_000), ("512MiB", 512 << 20), ("1.5 k", 1500), ("2tib", 2 << 40)],
)
def test_sizes_have_decimal_and_binary_units(text: str, expected: int) -> None:
    assert parsers.num_bytes(text) == expected


@pytest.mark.parametrize("text", ["", "GB", "-1", "0", "5 GBytes", "1e9", "9e30", "99999999TB"])
def test_what_is_no_size_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is not a size"):
        parsers.num_bytes(text)
