"""A GPU through `torch.cuda`, by which name ROCm's devices go, too. Names alone: no decisions.

Not run on a GPU yet. What each call must do is in `gpu.py`.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from tgi_cli.runtime.platforms.gpu import Memory

_NO_MEMORY = ("out of memory", "CUBLAS_STATUS_ALLOC_FAILED", "hipErrorOutOfMemory")


class CudaEvent:
    def __init__(self) -> None:
        self.event = torch.cuda.Event()  # type: ignore[no-untyped-call]

    def record(self) -> None:
        self.event.record()

    def synchronize(self) -> None:
        self.event.synchronize()


class CudaGraph:
    def __init__(self, graph: torch.cuda.CUDAGraph, output: Tensor) -> None:
        self._graph = graph
        self.output = output

    def replay(self) -> None:
        self._graph.replay()


class CudaGpu:
    """The device of that number among those that CUDA_VISIBLE_DEVICES leaves."""

    def __init__(self, index: int = 0) -> None:
        torch.cuda.init()  # type: ignore[no-untyped-call]  # says why it can't be used
        self.device = torch.device("cuda", index)
        torch.cuda.set_device(self.device)
        properties = torch.cuda.get_device_properties(self.device)
        self.name: str = properties.name
        self.arch = _arch_of(properties)
        self._graph_pool = torch.cuda.graph_pool_handle()
        self._graph_stream = torch.cuda.Stream(self.device)  # type: ignore[no-untyped-call]

    def memory(self) -> Memory:
        return Memory(*torch.cuda.mem_get_info(self.device))

    def allocated_bytes(self) -> int:
        return torch.cuda.memory_allocated(self.device)

    def peak_bytes(self) -> int:
        return torch.cuda.max_memory_reserved(self.device)

    def reset_peak(self) -> None:
        torch.cuda.reset_peak_memory_stats(self.device)

    def empty_cache(self) -> None:
        torch.cuda.empty_cache()

    def synchronize(self) -> None:
        torch.cuda.synchronize(self.device)

    def new_event(self) -> CudaEvent:
        return CudaEvent()

    def pinned(self, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
        return torch.zeros(shape, dtype=dtype, pin_memory=True)

    def copy(self, target: Tensor, source: Tensor) -> None:
        target.copy_(source, non_blocking=True)

    def capture(self, compute: Callable[[], Tensor]) -> CudaGraph:
        graph = torch.cuda.CUDAGraph()
        # Capturing on one stream lets the graphs share the pool's memory.
        with torch.cuda.graph(graph, pool=self._graph_pool, stream=self._graph_stream):
            output = compute()
        return CudaGraph(graph, output)

    def is_out_of_memory(self, exc: BaseException) -> bool:
        if isinstance(exc, torch.OutOfMemoryError):
            return True
        # Triton's launcher and cuBLAS raise a plain RuntimeError.
        return isinstance(exc, RuntimeError) and any(text in str(exc) for text in _NO_MEMORY)

    def is_usable(self) -> bool:
        try:
            torch.cuda.synchronize(self.device)
        except RuntimeError:
            return False
        return True


def _arch_of(properties: torch.cuda._CudaDeviceProperties) -> str:
    if torch.version.hip is not None:
        return properties.gcnArchName.partition(":")[0]  # "gfx942:sramecc+:xnack-"
    return f"sm_{properties.major}{properties.minor}"
