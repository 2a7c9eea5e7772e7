"""Compile one workload for one target and hold the result against what the workload promises."""

from __future__ import annotations

from dataclasses import dataclass

from tools.kernels.compiled import MAX_SHARED_BYTES, Facts, compile_calls
from tools.kernels.roofline import GPUS, Gpu, bound_us, roof_us
from tools.kernels.workload import Workload

_WIDE_SHARE = 0.8  # of the bytes that loads move


@dataclass(frozen=True, slots=True)
class Proof:
    """What is known of one workload on one target."""

    workload: Workload
    gpu: Gpu
    facts: list[Facts]  # of each kernel that it runs
    broken: list[str]  # promises, in words

    @property
    def roof_us(self) -> float:
        return roof_us(self.workload.cost, self.gpu)

    @property
    def bound_us(self) -> float:
        """Return the bound of the kernel that does most of the work."""
        workload = self.workload
        return bound_us(
            self.largest,
            self.gpu,
            workload.cost,
            num_programs=workload.num_programs,
            bytes_in_flight=workload.bytes_in_flight,
            loop_turns=workload.loop_turns,
        )

    @property
    def largest(self) -> Facts:
        return _largest(self.facts)


def prove(workload: Workload, gpu: Gpu) -> Proof:
    """Return what the compiler makes of `workload` for `gpu`'s target."""
    facts = compile_calls(gpu.target, lambda: workload.make("meta").run())
    return Proof(workload, gpu, facts, list(broken(workload, facts)))


def broken(workload: Workload, facts: list[Facts]) -> list[str]:
    if not facts:
        return ["no kernel was launched"]
    broken = []
    for kernel in facts:
        if kernel.spilled_bytes:
            broken.append(f"{kernel.kernel} spills {kernel.spilled_bytes} bytes a thread")
        limit = MAX_SHARED_BYTES[kernel.target]
        if kernel.shared_bytes > limit:
            broken.append(f"{kernel.kernel} wants {kernel.shared_bytes} of {limit} shared bytes")
    if workload.uses_mma and not any(kernel.mma for kernel in facts):
        broken.append("no matrix instruction")
    largest = _largest(facts)
    if workload.needs_wide_loads and largest.share_of_wide_loads() < _WIDE_SHARE:
        broken.append(f"{largest.kernel} loads {dict(largest.loads)}: less than 128 bits at once")
    most, turn = workload.max_loop_instructions, largest.loop_instructions
    if 0 < most < turn and largest.target.startswith("sm_"):
        broken.append(f"{largest.kernel} has {turn} instructions in its hot loop, not {most}")
    return broken


def _largest(facts: list[Facts]) -> Facts:
    """Return the kernel that does most of the work: one with matrix instructions, if any has."""
    return max(facts, key=lambda kernel: (bool(kernel.mma), kernel.num_instructions))


def different_code(proofs: list[Proof]) -> list[tuple[Proof, str]]:
    """Return the proofs whose matrix instructions or sums differ from those they must share."""
    by_name = {(p.workload.op, p.workload.shape, p.gpu.name): p for p in proofs}
    found = []
    for proof in proofs:
        if proof.workload.same_code_as is None:
            continue
        twin = by_name[proof.workload.op, proof.workload.same_code_as, proof.gpu.name]
        mine, theirs = set(proof.largest.mma), set(twin.largest.mma)
        if mine != theirs:
            found.append((proof, f"matrix instructions {mine}, where {theirs} were promised"))
        sums, their_sums = proof.largest.reductions, twin.largest.reductions
        if sums != their_sums:
            found.append((proof, f"rows are summed as {set(sums)}, not as {set(their_sums)}"))
    return found


def gpus_for(workload: Workload) -> list[Gpu]:
    return [gpu for gpu in GPUS.values() if gpu.target in workload.targets]
