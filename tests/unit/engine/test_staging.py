"""What the host writes for a step reaches the device whole, in order and without waiting."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.builders.fake_gpu import FakeGpu
from tgi_cli.runtime.engine.staging import Staging, fetch

SHAPES = [(1,), (7,), (0,), (3, 5), (129,), (40_000,), (600, 700)]


@settings(max_examples=40, deadline=None)
@given(
    steps=st.lists(
        st.lists(
            st.tuples(
                st.sampled_from("abc"),
                st.sampled_from(SHAPES),
                st.sampled_from([np.int32, np.int64, np.float64]),
            ),
            max_size=6,
        ),
        max_size=9,
    )
)
def test_every_array_arrives_and_pinned_memory_is_written_only_once_it_is_read(steps):
    gpu = FakeGpu()
    staging = Staging(gpu)

    for number, uploads in enumerate(steps):
        staging.next_step()
        for name, shape, dtype in uploads:
            array = np.arange(number, number + int(np.prod(shape))).reshape(shape).astype(dtype)

            tensor = staging.upload(name, array)

            assert tuple(tensor.shape) == shape
            assert np.array_equal(tensor.numpy(), array)
    gpu.synchronize()  # asserts that no pinned memory changed before it was read


def test_the_same_name_and_shape_have_the_same_address_whatever_came_between():
    staging = Staging(FakeGpu())
    addresses = []
    for size in (5, 3000, 5, 4, 5):
        staging.next_step()
        addresses.append(staging.upload("ids", np.arange(size)).data_ptr())

    assert addresses[0] == addresses[2] == addresses[4]


def test_two_names_and_two_uploads_of_one_name_in_a_step_do_not_meet_in_pinned_memory():
    gpu = FakeGpu()
    staging = Staging(gpu)
    staging.next_step()

    first = staging.upload("a", np.arange(5)).clone()
    other = staging.upload("b", np.arange(5, 10))
    second = staging.upload("a", np.arange(10, 15))
    gpu.synchronize()

    assert first.tolist() == list(range(5))
    assert other.tolist() == list(range(5, 10))
    assert second.tolist() == list(range(10, 15))


def test_a_step_waits_for_no_step_but_the_one_before_the_last():
    gpu = FakeGpu()
    staging = Staging(gpu)
    staging.next_step()
    staging.upload("ids", np.arange(3))
    staging.next_step()
    staging.upload("ids", np.arange(3))

    first_is_queued = not gpu.stream.has_passed(1)
    staging.next_step()

    assert first_is_queued
    assert gpu.stream.has_passed(1)
    assert not gpu.stream.has_passed(2)


def test_of_a_tracked_table_only_changed_rows_are_copied():
    gpu = FakeGpu()
    staging = Staging(gpu)
    table, changed = np.zeros((6, 9), dtype=np.int32), [1, 4]
    staging.track(table, lambda: [changed.pop() for _ in list(changed)])
    table[:] = np.arange(54).reshape(6, 9)
    staging.next_step()

    there = staging.upload("tables", table)

    assert np.array_equal(there[[1, 4]].numpy(), table[[1, 4]])
    assert not there[[0, 2, 3, 5]].any()
    assert len(gpu.calls_of("copy")) == 2
    assert staging.upload("tables", table).data_ptr() == there.data_ptr()
    assert len(gpu.calls_of("copy")) == 2


@pytest.mark.parametrize("dtype", [torch.float32, torch.int64])
def test_what_is_fetched_is_what_was_there_when_it_was_asked_for(dtype):
    gpu = FakeGpu()
    tensor = torch.arange(6, dtype=dtype).view(2, 3)

    copy = fetch(gpu, tensor)
    tensor.zero_()

    assert copy.tolist() == [[0, 1, 2], [3, 4, 5]]
    assert len(gpu.calls_of("event")) == 1
