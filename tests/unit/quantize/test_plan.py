"""What a plan that doesn't fit says would fit."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tgi_cli.errors import CapacityError
from tgi_cli.runtime.quantize.plan import Memory, RunPlan, check_memory

MB = 1_000_000


def plan(memory: Memory) -> RunPlan:
    sizes = {"source_bytes": 1, "output_bytes": 1, "disk_bytes": 1, "flops": 1.0}
    return RunPlan(num_layers=1, shapes={}, memory=memory, **sizes)  # type: ignore[arg-type]


def hint_of(memory: Memory, limit: int) -> str:
    with pytest.raises(CapacityError) as caught:
        check_memory(plan(memory), limit, 0)
    assert caught.value.hint is not None
    return caught.value.hint


def test_measuring_that_does_not_fit_can_be_left_out():
    hint = hint_of(Memory(700 * MB, 900 * MB, window_bytes=MB, num_windows=16), 800 * MB)

    assert "--no-evaluation" in hint
    assert "--num-samples" not in hint


def test_a_layer_that_does_not_fit_is_no_matter_of_options():
    hint = hint_of(Memory(900 * MB, 0, window_bytes=MB, num_windows=16), 800 * MB)

    assert "--" not in hint
    assert "844.0 MiB" in hint


@given(
    fixed=st.integers(1, 10**12),
    measuring=st.integers(0, 10**12),
    window=st.integers(1, 10**9),
    num_windows=st.integers(0, 10**4),
    limit=st.integers(0, 10**12),
)
def test_what_the_hint_says_fits(fixed, measuring, window, num_windows, limit):
    memory = Memory(fixed + num_windows * window, measuring, window, num_windows)
    if plan(memory).memory_bytes <= limit:
        return

    hint = hint_of(memory, limit)

    if "machine" in hint:
        assert fixed + (window if num_windows else 0) > limit
        return
    found = re.search(r"--num-samples (\d+)", hint)
    num_left = int(found[1]) if found else num_windows
    assert found is None or 1 <= num_left < num_windows
    measured = 0 if "--no-evaluation" in hint else measuring
    assert max(fixed + num_left * window, measured) <= limit
