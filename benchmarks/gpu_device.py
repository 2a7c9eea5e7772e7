"""A GPU as a stopwatch: what the benchmark asks of it, and torch's answer."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from typing import Protocol

import torch

_MAX_RUNS = 50
_MIN_RUNS = 5
_FLUSH_BYTES = 512 << 20  # more than any GPU's last cache: 50 MB on H100, 256 MB on MI300X


class Stopwatch(Protocol):
    """Times calls on one device."""

    name: str
    arch: str  # "sm_90", "gfx942"
    device: str  # as torch calls it

    def time_us(self, call: Callable[[], object], at_most_s: float) -> float:
        """Return the median microseconds of `call` with caches that hold none of its data."""
        ...


class CudaStopwatch:
    """Events on the device around each call, after its last cache was filled with other data.

    Filling takes long enough for the host to have queued the call before it ends, so what Python
    and the driver take isn't counted.
    """

    def __init__(self, device: str = "cuda") -> None:
        self.device = device
        properties = torch.cuda.get_device_properties(0)
        self.name = properties.name
        if torch.version.hip is None:
            self.arch = f"sm_{properties.major}{properties.minor}"
        else:
            self.arch = properties.gcnArchName.partition(":")[0]
        self._flush = torch.empty(_FLUSH_BYTES, dtype=torch.int8, device=device)

    def time_us(self, call: Callable[[], object], at_most_s: float) -> float:
        call()  # compiles, or chooses an algorithm
        times: list[float] = []
        total_s = 0.0
        while len(times) < _MIN_RUNS or (total_s < at_most_s and len(times) < _MAX_RUNS):
            start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            self._flush.zero_()
            start.record()
            call()
            end.record()
            end.synchronize()
            times.append(1000 * start.elapsed_time(end))
            total_s += times[-1] / 1e6
        return statistics.median(times)


def find_gpu() -> CudaStopwatch | str:
    """Return the first GPU, or why there is none."""
    if not torch.backends.cuda.is_built():
        return "this build of torch is for CPUs"
    if not torch.cuda.is_available():
        return "torch finds no GPU, or no driver for one"
    return CudaStopwatch()
