"""`CudaGpu` over a stand-in for `torch.cuda`: each call reaches the function that is meant."""

from __future__ import annotations

from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from tgi_cli.runtime.platforms import cuda
from tgi_cli.runtime.platforms.cuda import CudaGpu
from tgi_cli.runtime.platforms.gpu import Gpu, Memory


def properties(**changes: Any) -> SimpleNamespace:
    fields = {"name": "NVIDIA A100", "major": 8, "minor": 0, "gcnArchName": ""}
    return SimpleNamespace(**{**fields, **changes})


class StandIn:
    """Names and answers of a device; what is called is noted in `calls`."""

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.properties = properties()
        self.sticky: Exception | None = None

    def install(self, monkeypatch: pytest.MonkeyPatch) -> None:
        answers: dict[str, Any] = {
            "init": None,
            "set_device": None,
            "graph_pool_handle": (0, 1),
            "mem_get_info": (30, 80),
            "memory_allocated": 11,
            "max_memory_reserved": 22,
            "reset_peak_memory_stats": None,
            "empty_cache": None,
        }
        for name, answer in answers.items():
            monkeypatch.setattr(torch.cuda, name, self._noting(name, answer))
        monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: self.properties)
        monkeypatch.setattr(torch.cuda, "synchronize", self._synchronize)
        monkeypatch.setattr(torch.cuda, "Stream", lambda device: None)
        monkeypatch.setattr(torch.cuda, "Event", self._event)
        monkeypatch.setattr(torch.cuda, "CUDAGraph", self._new_graph)
        monkeypatch.setattr(torch.cuda, "graph", self._entering("graph"))

    def _noting(self, name: str, answer: Any) -> Any:
        def call(*args: Any) -> Any:
            self.calls.append(name)
            return answer

        return call

    def _synchronize(self, device: Any) -> None:
        self.calls.append("synchronize")
        if self.sticky is not None:
            raise self.sticky

    def _event(self) -> SimpleNamespace:
        return SimpleNamespace(
            record=lambda: self.calls.append("record"),
            synchronize=lambda: self.calls.append("event.synchronize"),
        )

    def _new_graph(self) -> SimpleNamespace:
        return SimpleNamespace(replay=lambda: self.calls.append("replay"))

    def _entering(self, name: str) -> Any:
        @contextmanager
        def enter(*args: Any, **kwargs: Any) -> Any:
            self.calls.append(f"enter {name}")
            yield
            self.calls.append(f"leave {name}")

        return enter


@pytest.fixture
def stand_in(monkeypatch: pytest.MonkeyPatch) -> StandIn:
    device = StandIn()
    device.install(monkeypatch)
    return device


def test_a_device_is_named_by_its_compute_capability(stand_in: StandIn) -> None:
    gpu: Gpu = CudaGpu()

    assert (gpu.name, gpu.arch) == ("NVIDIA A100", "sm_80")
    assert gpu.device == torch.device("cuda", 0)


def test_amds_is_named_by_its_instruction_set(
    stand_in: StandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.version, "hip", "7.0")
    stand_in.properties = properties(gcnArchName="gfx942:sramecc+:xnack-")

    assert CudaGpu().arch == "gfx942"


def test_memory_is_the_devices_and_the_allocators(stand_in: StandIn) -> None:
    gpu = CudaGpu()

    assert gpu.memory() == Memory(free_bytes=30, total_bytes=80)
    assert (gpu.allocated_bytes(), gpu.peak_bytes()) == (11, 22)
    gpu.reset_peak()
    gpu.empty_cache()
    assert stand_in.calls[-2:] == ["reset_peak_memory_stats", "empty_cache"]


def test_events_are_torchs(stand_in: StandIn) -> None:
    gpu = CudaGpu()
    event = gpu.new_event()
    stand_in.calls.clear()

    event.record()
    event.synchronize()

    assert stand_in.calls == ["record", "event.synchronize"]


def test_a_graph_is_recorded_once_and_replayed(stand_in: StandIn) -> None:
    gpu = CudaGpu()
    stand_in.calls.clear()

    graph = gpu.capture(lambda: torch.tensor([3.0]))
    graph.replay()

    assert graph.output.item() == 3.0
    assert stand_in.calls == ["enter graph", "leave graph", "replay"]


def test_a_copy_waits_for_nothing(stand_in: StandIn) -> None:
    target = torch.zeros(3)

    CudaGpu().copy(target, torch.arange(3.0))

    assert target.tolist() == [0.0, 1.0, 2.0]


@pytest.mark.parametrize(
    ("exc", "expected"),
    [
        (torch.OutOfMemoryError("CUDA out of memory"), True),
        (RuntimeError("Triton Error [CUDA]: out of memory"), True),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling"), True),
        (RuntimeError("an illegal memory access was encountered"), False),
        (ValueError("out of memory"), False),
    ],
)
def test_running_out_of_memory_is_told_from_other_errors(
    stand_in: StandIn, exc: Exception, expected: bool
) -> None:
    assert CudaGpu().is_out_of_memory(exc) is expected


def test_a_device_that_says_an_error_ever_after_is_not_usable(stand_in: StandIn) -> None:
    gpu = CudaGpu()

    assert gpu.is_usable()
    stand_in.sticky = torch.AcceleratorError("an illegal memory access was encountered")
    assert not gpu.is_usable()
    with pytest.raises(RuntimeError):
        gpu.synchronize()


def test_pinned_memory_is_asked_for_as_such(
    stand_in: StandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: dict[str, Any] = {}
    monkeypatch.setattr(cuda.torch, "zeros", lambda shape, **options: asked.update(options))

    CudaGpu().pinned((3, 5), torch.int32)

    assert asked == {"dtype": torch.int32, "pin_memory": True}
