"""How fast a kernel could be: bytes and operations over what a GPU's data sheet says.

    roof = max(bytes / bandwidth, operations / peak)

Bytes are those that must cross the memory's pins once: each input read, each output written, no
more. Peaks are dense tensor-core rates (data sheets of NVIDIA's A100-SXM 80 GB and H100-SXM, AMD's
MI300X). Williams, Waterman and Patterson, Roofline (2009).

`bound` adds what the compiled kernel says: how many programs fit on a multiprocessor, whether they
keep enough bytes on the way to hide the memory's latency (Little's law), and whether instructions
can be issued fast enough. It is a lower bound: no tails, no launch, no conflicts.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from tools.kernels.compiled import Facts

Number = Literal["fp32", "fp16", "fp8", "int8"]


@dataclass(frozen=True, slots=True)
class Gpu:
    name: str
    target: str  # of `compiled.TARGETS`
    num_multiprocessors: int
    bandwidth: float  # bytes/s
    peaks: dict[Number, float]  # operations/s
    clock: float  # Hz
    registers: int  # of 32 bits, of a multiprocessor
    shared_bytes: int  # of a multiprocessor
    warp_size: int
    max_warps: int  # of a multiprocessor
    latency_s: float = 650e-9  # of memory; assumed


GPUS = {
    "A100": Gpu(
        "A100", "sm_80", 108, 2.04e12,
        {"fp32": 19.5e12, "fp16": 312e12, "int8": 624e12, "fp8": 312e12},
        1.41e9, 65536, 164 << 10, 32, 64,
    ),
    "H100": Gpu(
        "H100", "sm_90", 132, 3.35e12,
        {"fp32": 66.9e12, "fp16": 989e12, "int8": 1979e12, "fp8": 1979e12},
        1.755e9, 65536, 228 << 10, 32, 64,
    ),
    "MI300X": Gpu(
        "MI300X", "gfx942", 304, 5.3e12,
        {"fp32": 163.4e12, "fp16": 1307e12, "int8": 2615e12, "fp8": 2615e12},
        2.1e9, 131072, 64 << 10, 64, 32,
    ),
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Cost:
    """What one call must move and compute."""

    num_bytes: int
    num_operations: int = 0  # a multiplication and an addition are two
    number: Number = "fp16"


def roof_us(cost: Cost, gpu: Gpu) -> float:
    """Return the least microseconds that `cost` takes on `gpu`."""
    seconds = max(cost.num_bytes / gpu.bandwidth, cost.num_operations / gpu.peaks[cost.number])
    return 1e6 * seconds


def programs_per_multiprocessor(facts: Facts, gpu: Gpu) -> int:
    """Return how many programs fit at once, by registers, shared memory and warps."""
    registers = -(-facts.registers * gpu.warp_size // 256) * 256 * facts.num_warps
    by_shared = gpu.shared_bytes // max(1, facts.shared_bytes + 1024)
    return max(
        1, min(gpu.registers // max(1, registers), by_shared, gpu.max_warps // facts.num_warps, 32)
    )


def bound_us(
    facts: Facts,
    gpu: Gpu,
    cost: Cost,
    *,
    num_programs: int,
    bytes_in_flight: int,
    loop_turns: int = 0,
) -> float:
    """Return a lower bound on microseconds for a kernel as compiled.

    `bytes_in_flight`: what one program has asked for and not yet received; `loop_turns`: of its hot
    loop, or launches of a program that has none. A multiprocessor issues four instructions of warps
    in a cycle.
    """
    at_once = min(num_programs, gpu.num_multiprocessors * programs_per_multiprocessor(facts, gpu))
    fed = min(1.0, at_once * bytes_in_flight / (gpu.bandwidth * gpu.latency_s))
    busy = min(num_programs, gpu.num_multiprocessors) / gpu.num_multiprocessors
    # On Hopper only wgmma (HGMMA, QGMMA, IGMMA) fills the tensor cores.
    is_synchronous = any(name.startswith(("HMMA", "IMMA", "QMMA")) for name in facts.mma)
    share = 0.6 if gpu.target == "sm_90" and is_synchronous else 1.0
    memory = cost.num_bytes / (gpu.bandwidth * fed)
    arithmetic = cost.num_operations / (gpu.peaks[cost.number] * share * busy)
    turn = facts.loop_instructions or facts.num_instructions
    instructions = num_programs * facts.num_warps * loop_turns * turn
    issue = instructions / (4 * gpu.clock * gpu.num_multiprocessors * busy)
    return 1e6 * max(memory, arithmetic, issue)
