"""Lengths come from the distribution that was asked for."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tgi_cli.errors import UsageError
from tgi_cli.runtime.bench.lengths import LengthSampler
from tgi_cli.runtime.bench.streams import generator
from tgi_cli.runtime.config.bench.length_forms import lengths

_FORMS = [
    "512", "uniform:100..900", "normal:512,sd=128,min=1,max=2048", "lognormal:median=40,sigma=0.8",
    "choice:128@3,2048@1",
]  # fmt: skip


def draw(form, count, seed=3):
    return LengthSampler(lengths(form)).draw(count, generator(seed))


def test_a_fixed_length_is_that_length():
    assert set(draw("512", 9).tolist()) == {512}


def test_uniform_lengths_include_both_ends():
    drawn = draw("uniform:3..7", 4000)

    values, counts = np.unique(drawn, return_counts=True)
    assert values.tolist() == [3, 4, 5, 6, 7]
    assert counts.min() > 650


def test_normal_lengths_have_mean_and_spread():
    drawn = draw("normal:512,sd=128", 20_000)

    assert drawn.mean() == pytest.approx(512, abs=5)
    assert drawn.std() == pytest.approx(128, abs=4)


def test_lognormal_lengths_have_their_median_and_a_long_tail():
    drawn = draw("lognormal:median=400,sigma=0.8", 20_000)

    assert np.median(drawn) == pytest.approx(400, rel=0.05)
    assert np.log(drawn).std() == pytest.approx(0.8, rel=0.05)


def test_what_lies_beyond_the_limits_is_put_at_them():
    drawn = draw("normal:50,sd=100,min=7,max=60", 500)

    assert (drawn.min(), drawn.max()) == (7, 60)


def test_choices_come_by_weight():
    drawn = draw("choice:128@3,2048@1,9@0", 8000)

    assert set(drawn.tolist()) == {128, 2048}
    assert np.mean(drawn == 128) == pytest.approx(0.75, abs=0.03)


def test_recorded_lengths_are_drawn_from_a_file(tmp_path):
    file = tmp_path / "lengths.txt"
    file.write_text("7\n19\n\n19\n")

    drawn = draw(f"file:{file}", 3000)

    assert set(drawn.tolist()) == {7, 19}
    assert np.mean(drawn == 19) == pytest.approx(2 / 3, abs=0.05)


@pytest.mark.parametrize("content", ["", "7\n0\n", "seven", "7.5", "99999999999", "\xff"])
def test_a_file_without_lengths_is_refused(tmp_path, content):
    file = tmp_path / "lengths.txt"
    file.write_text(content, encoding="latin-1")

    with pytest.raises(UsageError, match=r"lengths\.txt"):
        draw(f"file:{file}", 1)


@given(st.sampled_from(_FORMS), st.integers(1, 60), st.integers(0, 60))
def test_asking_for_more_begins_with_the_same(form, count, more):
    short, long = draw(form, count), draw(form, count + more)

    np.testing.assert_array_equal(long[:count], short)
