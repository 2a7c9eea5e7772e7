"""The fake device punishes what a real one would, so that tests over it mean something."""

from __future__ import annotations

import pytest
import torch

from tests.builders.fake_gpu import FakeGpu, IllegalAddressError
from tgi_cli.runtime.platforms.gpu import Gpu


def test_a_result_is_poison_until_its_event_was_waited_for() -> None:
    gpu: Gpu = FakeGpu()
    on_device, on_host = torch.tensor([7, 8, 9]), gpu.pinned((3,), torch.int64)
    done = gpu.new_event()

    gpu.copy(on_host, on_device)
    done.record()
    early = on_host.tolist()
    done.synchronize()

    assert early != [7, 8, 9]
    assert on_host.tolist() == [7, 8, 9]


def test_what_is_queued_behind_an_event_is_still_under_way_when_it_is_past() -> None:
    gpu = FakeGpu()
    first, second = gpu.pinned((1,), torch.int64), gpu.pinned((1,), torch.int64)
    done = gpu.new_event()

    gpu.copy(first, torch.tensor([1]))
    done.record()
    gpu.copy(second, torch.tensor([2]))
    done.synchronize()

    assert first.item() == 1
    assert second.item() != 2


def test_writing_to_a_source_that_is_being_copied_is_found() -> None:
    gpu = FakeGpu()
    staged, on_device = gpu.pinned((5,), torch.int32), torch.zeros(5, dtype=torch.int32)

    gpu.copy(on_device, staged)
    staged[2] = 1

    with pytest.raises(AssertionError, match="still being copied"):
        gpu.synchronize()


def test_a_graph_repeats_its_launches_and_spoils_the_others_outputs() -> None:
    gpu = FakeGpu()
    x = torch.tensor([1.0])
    double, triple = gpu.capture(lambda: x * 2), gpu.capture(lambda: x * 3)

    x.fill_(5.0)
    double.replay()
    doubled = double.output.item()
    triple.replay()

    assert doubled == 10.0
    assert triple.output.item() == 15.0
    assert double.output.isnan().all()


def test_waiting_inside_a_capture_fails() -> None:
    gpu = FakeGpu()

    def compute() -> torch.Tensor:
        gpu.synchronize()
        return torch.zeros(1)

    with pytest.raises(RuntimeError, match="capturing"):
        gpu.capture(compute)


def test_memory_runs_out_at_the_launch_that_a_test_names() -> None:
    gpu = FakeGpu()
    gpu.out_of_memory_at = {1}

    gpu.launch("first")
    with pytest.raises(torch.OutOfMemoryError) as caught:
        gpu.launch("second")
    gpu.launch("third")

    assert gpu.is_out_of_memory(caught.value)
    assert gpu.is_usable()
    assert gpu.calls == [("launch", "first"), ("launch", "second"), ("launch", "third")]


def test_nothing_computes_after_an_illegal_address() -> None:
    gpu = FakeGpu()
    gpu.breaks_at = 0

    with pytest.raises(IllegalAddressError):
        gpu.launch("first")
    with pytest.raises(IllegalAddressError):
        gpu.launch("second")

    assert not gpu.is_usable()


def test_the_peak_is_what_was_held_at_once() -> None:
    gpu = FakeGpu(total_bytes=1_000, used_bytes=300)

    gpu.launch("forward", num_bytes=450)
    gpu.launch("sample", num_bytes=50)

    assert gpu.peak_bytes() == 750
    assert gpu.memory().free_bytes == 700
    with pytest.raises(torch.OutOfMemoryError):
        gpu.launch("forward", num_bytes=701)
