"""The CPU as a device: threads, and what computes.

Threads wait passively: two spinning OpenMP threads collapse when a neighbour keeps a core busy. libgomp
reads its settings once, when torch loads it, so `prepare_process` comes before the first import of torch.
"""

from __future__ import annotations

import os


def prepare_process(num_threads: int) -> None:
    """Set up this process's thread pool. Call before torch is imported."""
    os.environ["OMP_WAIT_POLICY"] = "PASSIVE"
    os.environ["GOMP_SPINCOUNT"] = "0"
    os.environ["KMP_BLOCKTIME"] = "0"
    os.environ["OMP_NUM_THREADS"] = str(num_threads)


def set_num_threads(num_threads: int) -> None:
    """Make torch use `num_threads` inside an operation and none beside it."""
    import torch

    torch.set_num_threads(num_threads)
    torch.set_grad_enabled(False)


def describe_kernels() -> str:
    """Name what computes here, for the start table."""
    from tgi_cli.kernels import linear

    return linear.implementation()
