"""The table of all proofs, each operation compiled in a process of its own."""

from __future__ import annotations

import multiprocessing
import os

from tools.kernels.ops import all_workloads
from tools.kernels.proof import Proof, different_code, gpus_for, prove

COLUMNS = (
    "kernel", "shape", "target", "regs", "spill", "shared", "matrix", "wide", "MB", "roof µs",
    "bound µs", "expected", "because of",
)  # fmt: skip
Row = tuple[tuple[str, ...], list[str]]


def prove_quickly(pattern: str) -> list[Row]:
    """Compile the first workload of each operation, here."""
    firsts = {workload.op: workload for workload in reversed(all_workloads(pattern))}
    proofs = [prove(first, gpu) for first in firsts.values() for gpu in gpus_for(first)]
    return [(_row(proof), proof.broken) for proof in proofs]


def prove_all(pattern: str) -> list[Row]:
    """Compile each operation in a process of its own, as many at once as there are cores."""
    ops = sorted({workload.op for workload in all_workloads(pattern)})
    if not ops:
        return []
    context = multiprocessing.get_context("spawn")
    with context.Pool(min(len(ops), os.cpu_count() or 1), maxtasksperchild=1) as pool:
        return [row for rows in pool.map(_prove_op, ops, chunksize=1) for row in rows]


def _prove_op(op: str) -> list[Row]:
    workloads = [workload for workload in all_workloads() if workload.op == op]
    proofs = [prove(workload, gpu) for workload in workloads for gpu in gpus_for(workload)]
    for proof, difference in different_code(proofs):
        proof.broken.append(difference)
    return [(_row(proof), proof.broken) for proof in proofs]


def _row(proof: Proof) -> tuple[str, ...]:
    facts, workload = proof.largest, proof.workload
    return (
        workload.op,
        workload.shape,
        f"{proof.gpu.name} {proof.gpu.target}",
        str(facts.registers),
        str(max(kernel.spilled_bytes for kernel in proof.facts)),
        f"{max(kernel.shared_bytes for kernel in proof.facts) / 1024:.0f} K",
        " ".join(sorted({name.split(".")[0] for name in facts.mma})) or "-",
        f"{facts.share_of_wide_loads():.0%}",
        f"{workload.cost.num_bytes / 1e6:.3g}",
        f"{proof.roof_us:.3g}",
        f"{proof.bound_us:.3g}",
        f"{workload.expected_fraction:.0%}",
        workload.reason,
    )
