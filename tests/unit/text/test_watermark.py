from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tgi_cli.runtime.text.watermark import detect, green

IDS = st.integers(0, 200_000)
MASK = (1 << 64) - 1


def slow_is_green(previous_id: int, token_id: int, gamma: float) -> bool:
    """SplitMix64 as its paper has it, drawn once for each id."""
    state = 15485863 * previous_id & MASK
    state = state + (token_id + 1) * 0x9E3779B97F4A7C15 & MASK
    z = (state ^ state >> 30) * 0xBF58476D1CE4E5B9 & MASK
    z = (z ^ z >> 27) * 0x94D049BB133111EB & MASK
    z ^= z >> 31
    return z / 2**64 < gamma


@given(previous=IDS, token=IDS, gamma=st.sampled_from([0.1, 0.25, 0.5, 0.9]))
def test_the_green_list_is_that_of_the_named_generator(previous, token, gamma):
    [is_green] = green(np.array([previous]), np.array([token]), gamma)

    assert is_green == slow_is_green(previous, token, gamma)


@pytest.mark.parametrize("gamma", [0.25, 0.5])
def test_the_green_list_holds_the_share_gamma_and_depends_on_the_token_before(gamma):
    ids = np.arange(50_000)

    lists = [green(np.array([previous]), ids, gamma) for previous in (0, 1, 2, 777)]

    deviation = math.sqrt(gamma * (1 - gamma) / len(ids))
    for is_green in lists:
        assert abs(is_green.mean() - gamma) < 4 * deviation
    for a, b in pairwise(lists):
        assert abs((a & b).mean() - gamma**2) < 4 * deviation


def test_text_of_green_tokens_is_detected_and_repetition_proves_nothing():
    ids = [5]
    while len(ids) < 40:
        allowed = green(np.array(ids[-1:]), np.arange(1000), 0.5)
        ids.append(int(allowed.nonzero()[0][len(ids)]))

    found = detect(ids)
    repeated = detect(ids[:2] * 500)

    assert found.num_scored == found.num_green == 39
    assert found.z_score == pytest.approx(math.sqrt(39))
    assert found.p_value < 1e-9
    assert repeated.num_scored == 2
    assert repeated.p_value > 0.05


@given(ids=st.lists(IDS, max_size=1))
def test_a_text_without_a_pair_says_nothing(ids):
    assert detect(ids).p_value == 1.0
