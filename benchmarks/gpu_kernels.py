"""Each workload of `tools/kernels/ops` on a GPU: is it right, and how fast beside the roof?"""

from __future__ import annotations

import contextlib
import itertools
import multiprocessing
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial

import torch
from torch import Tensor

from benchmarks.gpu_device import Stopwatch
from tgi_cli.kernels import devices
from tools.kernels.compiled import TARGETS, compile_calls
from tools.kernels.ops import all_workloads
from tools.kernels.roofline import GPUS, Gpu, roof_us
from tools.kernels.workload import Workload

COLUMNS = (
    "kernel", "shape", "error", "µs", "roof µs", "of the roof", "expected", "beside it",
)  # fmt: skip
_AT_MOST_S = 0.2  # of timing one call


@dataclass(frozen=True, slots=True)
class Result:
    """What one workload gave; `failure` says what went wrong, if anything did."""

    workload: Workload
    error: float = 0.0  # of what the workload tolerates: 1 is the most
    time_us: float = 0.0
    peers_us: dict[str, float] = field(default_factory=dict)
    failure: str | None = None

    def row(self, gpu: Gpu | None) -> tuple[str, ...]:
        workload = self.workload
        head = (workload.op, workload.shape)
        if self.failure is not None:
            return (*head, self.failure, *("-",) * (len(COLUMNS) - 3))
        roof = None if gpu is None else roof_us(workload.cost, gpu)
        peers = (f"{name} {time:.3g} µs" for name, time in sorted(self.peers_us.items()))
        return (
            *head,
            f"{self.error:.2f}",
            f"{self.time_us:.3g}",
            "-" if roof is None else f"{roof:.3g}",
            "-" if roof is None else f"{roof / self.time_us:.0%}",
            f"{workload.expected_fraction:.0%}",
            ", ".join(peers) or "-",
        )


def known_gpu(name: str) -> Gpu | None:
    """Return the data sheet of a device by its maker's name for it."""
    return next((gpu for short, gpu in GPUS.items() if short in name), None)


def run_all(workloads: list[Workload], stopwatch: Stopwatch) -> Iterator[Result]:
    """Check and time what the device's instruction set is promised to run.

    The first workload of each operation comes before the second of any, so that a run that ends
    early has seen them all.
    """
    family = devices.family(stopwatch.arch)
    by_op: dict[str, list[Workload]] = {}
    for workload in workloads:
        if family in workload.targets:
            by_op.setdefault(workload.op, []).append(workload)
    for turn in itertools.zip_longest(*by_op.values()):
        for workload in turn:
            if workload is not None:
                yield run(workload, stopwatch)


def compile_all(pattern: str, arch: str, num_processes: int) -> None:
    """Compile the workloads of `all_workloads(pattern)` in parallel, for Triton's cache on disk.

    It only saves time: what isn't found there is compiled when it is first run.
    """
    if arch not in TARGETS:
        return
    ops = sorted({workload.op for workload in all_workloads(pattern)})
    context = multiprocessing.get_context("spawn")
    with context.Pool(num_processes, maxtasksperchild=1) as pool:
        pool.map(partial(_compile_op, arch=arch), ops, chunksize=1)


def _compile_op(op: str, arch: str) -> None:
    for workload in all_workloads():
        if workload.op == op and arch in workload.targets:
            with contextlib.suppress(Exception):  # it will be told when it is run
                compile_calls(arch, lambda workload=workload: workload.make("meta").run())


def run(workload: Workload, stopwatch: Stopwatch) -> Result:
    try:
        call = workload.make(stopwatch.device)
        error = _error(call.run(), call.expect(), workload.tolerance)
        if not error <= 1:
            return Result(workload, error, failure=f"WRONG: {error:.3g} of what is tolerated")
        time_us = stopwatch.time_us(call.run, _AT_MOST_S)
        peers = {name: stopwatch.time_us(peer, _AT_MOST_S) for name, peer in call.peers.items()}
    except Exception as exc:  # one kernel that fails shall not hide the others
        first_line = str(exc).partition("\n")[0][:80]
        return Result(workload, failure=f"FAILED: {type(exc).__name__}: {first_line}")
    return Result(workload, error, time_us, peers)


def _error(actual: tuple[Tensor, ...], expected: tuple[Tensor, ...], tolerance: float) -> float:
    """Return the largest deviation as a share of what is tolerated; infinite if a NaN differs."""
    return max(
        _deviation(mine, theirs) / tolerance for mine, theirs in zip(actual, expected, strict=True)
    )


def _deviation(actual: Tensor, expected: Tensor) -> float:
    """Return the largest error in eps of actual's type times (|expected| + its mean)."""
    if actual.shape != expected.shape:
        return float("inf")
    if not actual.is_floating_point():
        return 0.0 if torch.equal(actual.to(expected.dtype), expected) else float("inf")
    mine, theirs = actual.double(), expected.double()  # fp8 has few operations of its own
    is_nan = theirs.isnan()
    if not torch.equal(mine.isnan(), is_nan):
        return float("inf")
    mine, theirs = mine[~is_nan], theirs[~is_nan]
    if not mine.numel():
        return 0.0
    differs = mine != theirs  # equal infinities don't
    size = theirs.abs()
    finite_mean = size[size.isfinite()].mean() if bool(size.isfinite().any()) else 0.0
    allowed = torch.finfo(actual.dtype).eps * (size + finite_mean)
    share = torch.where(differs, (mine - theirs).abs() / allowed, torch.zeros_like(mine))
    return float(share.nan_to_num(nan=float("inf")).max())
