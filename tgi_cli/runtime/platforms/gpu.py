"""What the runtime asks of a GPU, in names alone: `cuda.py` is the real one.

Everything that the engine does with a device goes through here, so that every branch of it runs in
CPU tests, over `tests/builders/fake_gpu.py`. Work is asynchronous: a copy or a launch is queued on
the device's one stream, and the host finds its results once it has waited for an event recorded
later.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    import torch
    from torch import Tensor


@dataclass(frozen=True, slots=True)
class Memory:
    """Of the whole device, other processes' use included."""

    free_bytes: int
    total_bytes: int


class Event(Protocol):
    """A point in the device's queue."""

    def record(self) -> None:
        """Stand behind what has been queued so far; an event may be reused."""
        ...

    def synchronize(self) -> None:
        """Wait until the device has come past it; at once if it was never recorded."""
        ...


class Graph(Protocol):
    """Launches that were recorded once and are repeated as one."""

    @property
    def output(self) -> Tensor:
        """What the recorded call returned: overwritten by the next replay of any graph."""
        ...

    def replay(self) -> None:
        """Queue the launches, over the same addresses as when recorded."""
        ...


class Gpu(Protocol):
    """One device, which this process computes on."""

    @property
    def device(self) -> torch.device:
        """Where its tensors are."""
        ...

    @property
    def name(self) -> str:
        """As its maker calls it: "NVIDIA H100 80GB HBM3"."""
        ...

    @property
    def arch(self) -> str:
        """The instruction set: "sm_90", "gfx942"."""
        ...

    def memory(self) -> Memory: ...

    def allocated_bytes(self) -> int:
        """Return what this process's tensors take."""
        ...

    def peak_bytes(self) -> int:
        """Return the most that this process has held for tensors since `reset_peak`."""
        ...

    def reset_peak(self) -> None: ...

    def empty_cache(self) -> None:
        """Give memory that no tensor uses back to the device."""
        ...

    def synchronize(self) -> None:
        """Wait for everything that was queued."""
        ...

    def new_event(self) -> Event: ...

    def pinned(self, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
        """Return host memory, of zeros, that copies to and from the device needn't wait for."""
        ...

    def copy(self, target: Tensor, source: Tensor) -> None:
        """Queue a copy between the device and pinned memory, or within the device.

        Until an event recorded later is past, the host may not write to a pinned `source` nor read
        a pinned `target`.
        """
        ...

    def capture(self, compute: Callable[[], Tensor]) -> Graph:
        """Record what `compute` launches, without running it.

        All graphs share one pool of memory, so have an output read before the next replay.
        `compute` must have run once before, and may neither wait for the device nor copy from
        memory that isn't pinned.

        Raises:
            RuntimeError: something in it can't be recorded, or memory ran out.
        """
        ...

    def is_out_of_memory(self, exc: BaseException) -> bool:
        """Whether `exc` says that the device has too little memory; it can be used again then."""
        ...

    def is_usable(self) -> bool:
        """Whether the device still computes.

        After an error such as an illegal address nothing does in this process any more.
        """
        ...
