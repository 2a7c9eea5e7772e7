"""Values of `tgi bench`'s options: what they mean, and that they are written as they are read."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tgi_cli.runtime.config.bench import forms, length_forms
from tgi_cli.runtime.config.bench.forms import (
    Cancel,
    MaxErrors,
    Ramp,
    SharedPrefix,
    Warmup,
)
from tgi_cli.runtime.config.bench.length_forms import Lengths


@pytest.mark.parametrize(
    ("text", "seconds"), [("500ms", 0.5), ("20s", 20.0), ("20", 20.0), ("1.5m", 90.0), ("2h", 7200)]
)
def test_times_have_units(text, seconds):
    assert forms.duration(text) == seconds


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("512", Lengths(kind="fixed", value=512)),
        ("uniform:100..900", Lengths(kind="uniform", low=100, high=900)),
        (
            "normal:512,sd=128,min=1,max=2048",
            Lengths(kind="normal", center=512, spread=128, minimum=1, maximum=2048),
        ),
        (
            "lognormal:median=400,sigma=0.8,min=,max=",
            Lengths(kind="lognormal", center=400, spread=0.8),
        ),
        ("choice:128@3,2048@1", Lengths(kind="choice", choices=((128, 3.0), (2048, 1.0)))),
        ("file:some/lengths.txt", Lengths(kind="file", path="some/lengths.txt")),
    ],
)
def test_lengths_are_read(text, expected):
    assert length_forms.lengths(text) == expected


@pytest.mark.parametrize(
    ("parse", "value"),
    [
        (
            length_forms.lengths,
            Lengths(kind="normal", center=512.5, spread=0.0, minimum=3, maximum=99),
        ),
        (length_forms.lengths, Lengths(kind="lognormal", center=400, spread=0.8)),
        (length_forms.lengths, Lengths(kind="choice", choices=((7, 0.25), (9, 1.0)))),
        (forms.shared_prefix, SharedPrefix(1024)),
        (forms.shared_prefix, SharedPrefix(1024, 8, 1.1)),
        (forms.cancel, Cancel(0.05, 2.0)),
        (forms.warmup, Warmup(requests=12)),
        (forms.warmup, Warmup(other=2.5)),
        (forms.max_errors, MaxErrors(requests=0)),
        (forms.max_errors, MaxErrors(other=0.125)),
    ],
)
def test_what_is_written_reads_the_same(parse, value):
    assert parse(str(value)) == value


@given(
    st.floats(0.001, 1e6),
    st.floats(0.001, 1e6),
    st.floats(0.001, 1e5),
)
def test_ramps_are_written_as_they_are_read(start, stop, duration):
    ramp = Ramp(float(f"{start:.9g}"), float(f"{stop:.9g}"), float(f"{duration:.9g}"))
    if "e" in str(ramp):
        return  # a load beyond any use

    assert forms.ramps(str(ramp)) == (ramp,)


def test_a_bare_number_warms_up_by_requests_and_a_time_by_seconds():
    assert forms.warmup("10") == Warmup(requests=10)
    assert forms.warmup("10s") == Warmup(other=10.0)
    assert forms.warmup("0").is_zero


@pytest.mark.parametrize(
    ("parse", "text"),
    [
        (forms.duration, "-1s"),
        (forms.duration, "1 s"),
        (forms.duration, "9" * 400 + "s"),
        (forms.percentage, "5"),
        (forms.percentage, "101%"),
        (forms.counts, "1,,2"),
        (forms.counts, "4,4"),
        (forms.counts, "0"),
        (forms.counts, "1,100001"),
        (forms.rates, "nan"),
        (forms.rates, "-2"),
        (forms.ramps, "1..50"),
        (forms.ramps, "0..0/10s"),
        (length_forms.lengths, "0"),
        (length_forms.lengths, "uniform:9..3"),
        (length_forms.lengths, "normal:512"),
        (length_forms.lengths, "normal:512,sd=1,sd=2"),
        (length_forms.lengths, "normal:512,sd=1,min=9,max=3"),
        (length_forms.lengths, "choice:5@0"),
        (length_forms.lengths, "zipf:3"),
        (forms.shared_prefix, "1024,skew=1"),
        (forms.shared_prefix, "x8"),
        (forms.shared_prefix, "64x100001"),
        (length_forms.lengths, "lognormal:median=400,sigma=999"),
        (forms.cancel, "5%"),
        (forms.goodput, "ttft=5s,ttft=6s"),
        (forms.goodput, "speed=5s"),
        (forms.header, "no colon"),
        (forms.header, "X-Name: a\r\nY: b"),
        (forms.body, "[1]"),
        (forms.body, "[" * 100_000),
        (forms.base_url, "ftp://host"),
        (forms.base_url, "http://key@host"),
        (forms.workers, "0"),
    ],
)
def test_what_makes_no_sense_is_refused(parse, text):
    with pytest.raises(ValueError, match=r".+"):
        parse(text)


@given(st.text(max_size=40))
def test_no_text_makes_a_parser_fail_otherwise(text):
    for parse in (
        forms.duration, forms.percentage, forms.counts, forms.rates, forms.ramps,
        length_forms.lengths,
        forms.shared_prefix, forms.cancel, forms.warmup, forms.max_errors, forms.goodput,
        forms.header, forms.meta, forms.body, forms.workers, forms.base_url, forms.path,
    ):  # fmt: skip
        try:
            parse(text)
        except ValueError:
            continue


def test_a_bad_header_is_not_shown():
    with pytest.raises(ValueError, match="written NAME:VALUE") as raised:
        forms.header("Authorization Bearer hunter2")

    assert "hunter2" not in str(raised.value)
