from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tgi_cli.runtime.engine.sampling.philox import philox4x32, uniform, uniforms

ONES = 0xFFFFFFFF


@pytest.mark.parametrize(
    ("counter", "key", "words"),
    [
        ((0, 0, 0, 0), (0, 0), (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
        ((ONES,) * 4, (ONES,) * 2, (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD)),
        (
            (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
            (0xA4093822, 0x299F31D0),
            (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1),
        ),
    ],
)
def test_philox_gives_the_published_words(counter, key, words):
    assert philox4x32(counter, key) == words


@given(seed=st.integers(0, 2**64 - 1), position=st.integers(0, 2**40))
def test_uniform_is_a_pure_function_into_the_unit_interval(seed, position):
    value = uniform(seed, position)

    assert 0.0 <= value < 1.0
    assert value == uniform(seed, position)


def test_neighbouring_seeds_and_positions_give_unlike_numbers():
    values = {uniform(seed, position) for seed in range(40) for position in range(40)}

    assert len(values) == 1600
    assert abs(sum(values) / 1600 - 0.5) < 0.03


@given(
    pairs=st.lists(
        st.tuples(st.integers(0, 2**64 - 1), st.integers(0, 2**40)), min_size=1, max_size=9
    )
)
def test_many_at_once_are_the_same_numbers(pairs):
    seeds, positions = zip(*pairs, strict=True)

    assert uniforms(seeds, positions).tolist() == [uniform(*pair) for pair in pairs]
