"""The CPU as a device: threads, and what computes.

Threads wait passively: two spinning OpenMP threads collapse when a neighbour keeps a core busy.
libgomp reads its settings once, when it is loaded, so `prepare_process` comes before the first
import of torch.
"""

from __future__ import annotations

import ctypes
import os

_M_MMAP_THRESHOLD = -3  # malloc.h


def prepare_process(num_threads: int) -> None:
    """Set up this process's thread pool. Call before torch is imported."""
    os.environ["OMP_WAIT_POLICY"] = "PASSIVE"
    os.environ["GOMP_SPINCOUNT"] = "0"
    os.environ["KMP_BLOCKTIME"] = "0"
    os.environ["OMP_NUM_THREADS"] = str(num_threads)


def set_num_threads(num_threads: int) -> None:
    """Compute with `num_threads`, in torch and in the native kernels, and without gradients."""
    import torch

    from tgi_cli.kernels import native

    torch.set_num_threads(num_threads)
    torch.set_grad_enabled(False)
    native.set_num_threads(num_threads)


def give_back_freed_memory() -> None:
    """Have glibc return what is freed, in pieces from 1 MiB up, to the system at once.

    Loading makes and drops a few copies of each tensor; kept in the heap they cost a fifth of the
    weights again.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_MMAP_THRESHOLD, 1 << 20)


def describe_kernels() -> str:
    """Name what computes here, for the start table."""
    from tgi_cli.kernels import linear, native

    others = "native" if native.is_available() else "torch (native kernels aren't built or are off)"
    return f"linear: {linear.implementation()}; attention, norms: {others}"
