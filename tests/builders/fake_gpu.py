"""A GPU of CPU tensors, which records what it is asked and punishes what a real one would.

What is launched computes at once, but the host finds out late, as on a device: a pinned target is
poison until an event behind its copy has been waited for, a pinned source may not change until
then, and a graph's output is poison once another graph was replayed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from tgi_cli.runtime.platforms.gpu import Memory

GIB = 1 << 30


class IllegalAddressError(RuntimeError):
    """What a device says once a kernel has left its memory, and ever after."""

    def __init__(self) -> None:
        super().__init__("CUDA error: an illegal memory access was encountered")


class FakeStream:
    def __init__(self) -> None:
        self._queued: list[Callable[[], None]] = []  # what the host learns later, oldest first
        self._num_past = 0

    @property
    def length(self) -> int:
        return self._num_past + len(self._queued)

    def put(self, action: Callable[[], None]) -> None:
        self._queued.append(action)

    def catch_up(self, length: int) -> None:
        """Let the host learn of everything before that place in the queue."""
        while self._num_past < length:
            self._num_past += 1
            self._queued.pop(0)()

    def has_passed(self, length: int) -> bool:
        return self._num_past >= length


class FakeEvent:
    def __init__(self, gpu: FakeGpu) -> None:
        self._gpu = gpu
        self._place = 0  # what was queued before

    def record(self) -> None:
        self._gpu.record_call("record")
        self._place = self._gpu.stream.length

    def synchronize(self) -> None:
        self._gpu.block("event")
        self._gpu.stream.catch_up(self._place)


class FakeGraph:
    def __init__(self, gpu: FakeGpu, compute: Callable[[], Tensor], output: Tensor) -> None:
        self._gpu = gpu
        self._compute = compute
        self.output = output

    def replay(self) -> None:
        self._gpu.launch("replay")
        for other in self._gpu.graphs:
            poison(other.output)
        with self._gpu.unrecorded():
            self.output.copy_(self._compute())


class FakeGpu:
    """See the module's header. `calls` is what was asked, oldest first, as (what, detail)."""

    def __init__(
        self,
        *,
        name: str = "NVIDIA H100 80GB HBM3",
        arch: str = "sm_90",
        total_bytes: int = 80 * GIB,
        used_bytes: int = 0,
    ) -> None:
        self.device = torch.device("cpu")
        self.name = name
        self.arch = arch
        self.total_bytes = total_bytes
        self.used_bytes = used_bytes  # by tensors of ours
        self.foreign_bytes = 0  # by others and by the driver
        self.calls: list[tuple[str, str]] = []
        self.graphs: list[FakeGraph] = []
        self.num_launches = 0
        self.out_of_memory_at: set[int] = set()  # launches, counted from 0
        self.max_launch_bytes = total_bytes  # more in one launch are out of memory
        self.fails_capture: Callable[[], bool] = lambda: False
        self.breaks_at: int | None = None  # the launch that leaves its memory
        self.stream = FakeStream()
        self._peak_bytes = used_bytes
        self._is_capturing = False
        self._is_replaying = False
        self._is_broken = False
        self._pinned: list[Tensor] = []

    # What tests and their models say

    def launch(self, name: str, num_bytes: int = 0) -> None:
        """Stand for a kernel that needs `num_bytes` for as long as it runs."""
        self._check()
        if self._is_replaying or self._is_capturing:
            return
        index, self.num_launches = self.num_launches, self.num_launches + 1
        self.record_call("launch", name)
        if index == self.breaks_at:
            self._is_broken = True
            raise IllegalAddressError
        is_too_much = self.used_bytes + self.foreign_bytes + num_bytes > self.total_bytes
        if index in self.out_of_memory_at or num_bytes > self.max_launch_bytes or is_too_much:
            raise torch.OutOfMemoryError("CUDA out of memory, said a test")
        self._peak_bytes = max(self._peak_bytes, self.used_bytes + num_bytes)

    def allocate(self, num_bytes: int) -> None:
        """Take that much for tensors; a negative number gives it back."""
        if self.used_bytes + self.foreign_bytes + num_bytes > self.total_bytes:
            raise torch.OutOfMemoryError("CUDA out of memory, said a test")
        self.used_bytes += num_bytes
        self._peak_bytes = max(self._peak_bytes, self.used_bytes)

    def calls_of(self, *kinds: str) -> list[tuple[str, str]]:
        return [call for call in self.calls if call[0] in kinds]

    # What fakes say

    def record_call(self, kind: str, detail: str = "") -> None:
        if not self._is_replaying:
            self.calls.append((kind, detail))

    def block(self, kind: str, detail: str = "") -> None:
        """Record that the host waits for the device."""
        self._check()
        if self._is_capturing:
            raise RuntimeError("operation not permitted when stream is capturing")
        self.record_call(kind, detail)

    @contextmanager
    def unrecorded(self) -> Iterator[None]:
        was, self._is_replaying = self._is_replaying, True
        try:
            yield
        finally:
            self._is_replaying = was

    def _check(self) -> None:
        if self._is_broken:
            raise IllegalAddressError

    # The protocol

    def memory(self) -> Memory:
        return Memory(self.total_bytes - self.used_bytes - self.foreign_bytes, self.total_bytes)

    def allocated_bytes(self) -> int:
        return self.used_bytes

    def peak_bytes(self) -> int:
        return self._peak_bytes

    def reset_peak(self) -> None:
        self._peak_bytes = self.used_bytes

    def empty_cache(self) -> None:
        self.record_call("empty_cache")

    def synchronize(self) -> None:
        self.block("synchronize", "all")
        self.stream.catch_up(self.stream.length)

    def new_event(self) -> FakeEvent:
        return FakeEvent(self)

    def pinned(self, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
        if self._is_capturing:
            raise RuntimeError("operation not permitted when stream is capturing")
        self.record_call("pinned", str(tuple(shape)))
        tensor = torch.zeros(shape, dtype=dtype)
        self._pinned.append(tensor)
        return tensor

    def copy(self, target: Tensor, source: Tensor) -> None:
        self._check()
        self.record_call("copy", "to host" if self._is_pinned(target) else "to device")
        if self._is_pinned(target):
            value = source.clone()
            poison(target)
            self.stream.put(lambda: _deliver(target, value))
            return
        target.copy_(source)
        if self._is_pinned(source):
            sent = source.clone()
            self.stream.put(lambda: _check_unchanged(source, sent))

    def capture(self, compute: Callable[[], Tensor]) -> FakeGraph:
        self.block("capture")
        if self.fails_capture():
            raise torch.OutOfMemoryError("CUDA out of memory while capturing, said a test")
        self._is_capturing = True
        try:
            output = compute().clone()
        finally:
            self._is_capturing = False
        poison(output)
        graph = FakeGraph(self, compute, output)
        self.graphs.append(graph)
        return graph

    def is_out_of_memory(self, exc: BaseException) -> bool:
        return isinstance(exc, torch.OutOfMemoryError)

    def is_usable(self) -> bool:
        return not self._is_broken

    def _is_pinned(self, tensor: Tensor) -> bool:
        address = tensor.data_ptr()
        return any(
            whole.data_ptr() <= address < whole.data_ptr() + whole.nbytes for whole in self._pinned
        )


def poison(tensor: Tensor) -> None:
    """Fill with what no test expects."""
    if tensor.is_floating_point():
        tensor.fill_(float("nan"))
    elif tensor.dtype == torch.bool:
        tensor.fill_(True)
    else:
        tensor.fill_(torch.iinfo(tensor.dtype).max)


def _deliver(target: Tensor, value: Tensor) -> None:
    target.copy_(value)


def _check_unchanged(source: Tensor, sent: Tensor) -> None:
    assert torch.equal(source, sent), "the host wrote to pinned memory that was still being copied"
