"""What a body may become, counted on its bytes, against a parser that walks the real thing."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tgi_cli.runtime.router import json_bounds
from tgi_cli.runtime.router.json_bounds import TooDeep, TooManyValues, check_bounds

MAX_VALUES, MAX_DEPTH = 9, 5

texts = st.text(st.sampled_from('ab"\\[]{},:é'), max_size=5)
values = st.recursive(
    st.integers() | texts | st.none(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=12,
)


def depth_of(value):
    children = value.values() if isinstance(value, dict) else value
    if not isinstance(value, dict | list):
        return 0
    return 1 + max(map(depth_of, children), default=0)


def count_of(value):
    """Strings, keys included, arrays and objects."""
    if isinstance(value, dict):
        return 1 + len(value) + sum(map(count_of, value.values()))
    if isinstance(value, list):
        return 1 + sum(map(count_of, value))
    return int(isinstance(value, str))


def outcome(raw):
    try:
        check_bounds(raw)
    except (TooDeep, TooManyValues) as exc:
        return type(exc)
    return None


@given(value=values)
def test_bounds_are_those_of_the_decoded_value(value):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(json_bounds, "MAX_VALUES", MAX_VALUES)
        patch.setattr(json_bounds, "MAX_DEPTH", MAX_DEPTH)
        found = outcome(json.dumps(value).encode())

    is_deep, is_large = depth_of(value) > MAX_DEPTH, count_of(value) > MAX_VALUES
    if is_deep and is_large:
        assert found in (TooDeep, TooManyValues)
    elif is_deep:
        assert found is TooDeep
    elif is_large:
        # One without many brackets or commas is let through at once: it is small.
        assert found is TooManyValues or json.dumps(value).count(",") <= MAX_VALUES
    else:
        assert found is None


@given(raw=st.binary(max_size=300) | st.text(st.sampled_from('[]{}",\\'), max_size=300))
def test_any_bytes_are_looked_at_without_an_error(raw):
    outcome(raw if isinstance(raw, bytes) else raw.encode())


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        (b"[" * 64 + b"]" * 64, None),
        (b"[" * 65 + b"]" * 65, TooDeep),
        (b'{"a":' * 65 + b"0" + b"}" * 65, TooDeep),
        (b"[" * 1_000_000, TooDeep),
        (b"[" * 1_000_000 + b"]" * 999_990, TooDeep),
        (b"[]," * 600_000, TooManyValues),
        (b'"",' * 600_000, TooManyValues),
        (b"0," * 900_000, TooManyValues),
        (b'"' + b"[{," * 600_000 + b'"', None),
        (b'"' + b'[\\",' * 400_000 + b'"', None),
        (b'"\\\\"' + b"[" * 70 + b"]" * 70, TooDeep),
    ],
)
def test_megabytes_of_each_kind(raw, expected):
    assert outcome(raw) is expected


def test_a_route_may_take_more_numbers():
    check_bounds(b"[" + b"7," * 900_000 + b"7]", max_numbers=1_000_000)
