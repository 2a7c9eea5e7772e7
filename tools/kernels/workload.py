"""One call of a kernel at the size that production runs it at: to compile, to count, to time.

`tools/kernels/ops/` has a file for each operation with its WORKLOADS; `python -m tools.kernels`
compiles them and prints the table, `benchmarks/gpu.py` runs and times the same ones on a GPU.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor

from tools.kernels.roofline import Cost

Outputs = tuple[Tensor, ...]


@dataclass(frozen=True, slots=True)
class Call:
    """A launcher with its inputs, on one device."""

    run: Callable[[], Outputs]  # what is written, in place or new
    expect: Callable[[], Outputs]  # by the reference, in fp32 or fp64, of the same inputs
    peers: dict[str, Callable[[], object]] = field(default_factory=dict)  # others' way, timed too


@dataclass(frozen=True, slots=True)
class Workload:
    """What a kernel is asked for, what it must cost, and what its code must show.

    `make` is given "meta" to compile, "cuda" to run.
    """

    op: str
    shape: str  # for people
    make: Callable[[str], Call]
    cost: Cost
    num_programs: int
    bytes_in_flight: int  # of a program: its loads of one turn of the hot loop, times the stages
    expected_fraction: float  # of the roof's speed, on H100
    reason: str  # for what is missing from it
    loop_turns: int = 0  # of a program's hot loop; of its launches if it has none; 0: not counted
    uses_mma: bool = False
    needs_wide_loads: bool = False  # most bytes by 128-bit loads
    max_loop_instructions: int = 0  # of a turn of the hot loop, on NVIDIA's GPUs; 0: any number
    tolerance: float = 1.0  # of eps of the output's type, times (|expected| + its mean)
    targets: tuple[str, ...] = ("sm_80", "sm_90", "gfx942")
    same_code_as: str | None = None  # shape of the workload whose matrix instructions it must share


def randn(
    *shape: int, dtype: torch.dtype = torch.float32, device: str = "cpu", scale: float = 1.0
) -> Tensor:
    """Return `scale` times normal numbers, the same ones for the same shape; nothing on "meta"."""
    if device == "meta":
        return torch.empty(shape, dtype=dtype, device=device)
    generator = torch.Generator().manual_seed(sum(shape) * 31 + len(shape))
    return (torch.randn(shape, generator=generator) * scale).to(dtype).to(device)
