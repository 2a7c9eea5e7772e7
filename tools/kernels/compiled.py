"""What the compiler makes of a kernel for a GPU that isn't here: registers, memory, instructions.

A launcher runs on tensors of the device "meta" under a driver that only names a target, so that
alignment and sizes specialise as in production. TRITON_INTERPRET must not be set.
"""

from __future__ import annotations

import itertools
import re
import subprocess
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import triton
from triton.backends.compiler import GPUTarget

TARGETS = {
    "sm_80": GPUTarget("cuda", 80, 32),
    "sm_90": GPUTarget("cuda", 90, 32),
    "gfx942": GPUTarget("hip", "gfx942", 64),
}
MAX_SHARED_BYTES = {"sm_80": 163 << 10, "sm_90": 227 << 10, "gfx942": 64 << 10}

_TOOLS = Path(triton.__file__).parent / "backends/nvidia/bin"
_INSTRUCTION = re.compile(r"/\*[0-9a-f]{4,}\*/\s+(?:@!?U?P\w+ )?([A-Z][\w.]*)")
_LABEL = re.compile(r"^(\.L\w+):")
_BRANCH = re.compile(r"(?:\bBRA\b.*?`\(|s_c?branch\w*\s+)(\.L\w+)")
_AMD_INSTRUCTION = re.compile(r"^\s+[a-z]\w+")
_MMA = r"[HIQD]G?MMA|UTC\w*MMA|v_mfma"
_LOADS = r"LDG(STS)?\.|UTMALDG|(global|buffer)_load"
_devices = itertools.count()  # kernels are cached by device number, so each call gets a new one


@dataclass(frozen=True, slots=True)
class Facts:
    """One compiled kernel."""

    kernel: str
    target: str
    num_warps: int
    registers: int
    spilled_bytes: int  # of stack, for each thread
    shared_bytes: int
    mma: dict[str, int]  # matrix instructions, how many of each
    loads: dict[str, int]  # of global memory
    num_instructions: int
    loop_instructions: int  # of the longest loop that holds no other: one turn, of each warp
    reductions: frozenset[str] = frozenset()  # of a tile's rows: of how many numbers, who has which
    assembly: str = field(repr=False, default="")

    def share_of_wide_loads(self) -> float:
        """Return the bytes that 128-bit loads move, of all bytes that loads move, loops once."""
        moved = {name: _bits(name) * count for name, count in self.loads.items()}
        total = sum(moved.values())
        wide = sum(moved[name] for name in self.loads if _bits(name) >= 128)
        return wide / total if total else 1.0


def compile_calls(target: str, call: Callable[[], object]) -> list[Facts]:
    """Return facts on each kernel that `call`, a launcher on meta tensors, would run."""
    device, built = next(_devices), []
    utils = SimpleNamespace(
        get_device_properties=lambda _: {"max_shared_mem": 1 << 30, "multiprocessor_count": 1},
        load_binary=lambda *_: (1, 1, 0, 0, 1024),
    )
    triton.runtime.driver.set_active(
        SimpleNamespace(
            get_current_target=lambda: TARGETS[target],
            get_current_device=lambda: device,
            get_current_stream=lambda _: 0,
            utils=utils,
            launcher_cls=lambda source, metadata: lambda *launch: None,
        )
    )
    triton.knobs.compilation.listener = lambda *, metadata, metadata_group, **_: built.append(
        (metadata, metadata_group)
    )
    call()
    return [_facts(target, *kernel) for kernel in built]


def _facts(target: str, metadata: dict[str, Any], files: dict[str, str]) -> Facts:
    path = next(Path(p) for name, p in files.items() if name.endswith((".cubin", ".amdgcn")))
    if target.startswith("sm_"):
        usage = re.search(
            r"REG:(\d+) STACK:(\d+)", _run("cuobjdump", path, "--dump-resource-usage")
        )
        assert usage is not None, path
        registers, spilled = map(int, usage.groups())
        assembly = _run("nvdisasm", path, "-c")
        names = Counter(_INSTRUCTION.findall(assembly))
    else:
        assembly = path.read_text()
        registers = _field(assembly, "vgpr_count")
        spilled = 4 * _field(assembly, "vgpr_spill_count")
        spilled += _field(assembly, "private_segment_fixed_size")
        names = Counter(re.findall(r"^\s+([a-z]\w+)", assembly, re.M))
    return Facts(
        kernel=metadata["name"],
        target=target,
        num_warps=metadata["num_warps"],
        registers=registers,
        spilled_bytes=spilled,
        shared_bytes=metadata["shared"],
        mma={name: n for name, n in sorted(names.items()) if re.match(_MMA, name)},
        reductions=reductions(_read(files, ".ttgir")),
        loads={name: n for name, n in sorted(names.items()) if re.match(_LOADS, name)},
        num_instructions=sum(names.values()),
        loop_instructions=loop_instructions(assembly),
        assembly=assembly,
    )


def loop_instructions(assembly: str) -> int:
    """Return how many instructions the longest innermost loop has; 0 if there is none."""
    begins: dict[str, int] = {}  # at which instruction, by label
    loops: list[tuple[int, int]] = []
    place = 0
    for line in assembly.splitlines():
        if label := _LABEL.match(line):
            begins[label[1]] = place
            continue
        place += bool(_INSTRUCTION.search(line) or _AMD_INSTRUCTION.match(line))
        branch = _BRANCH.search(line)
        if branch and branch[1] in begins:
            loops.append((begins[branch[1]], place))
    innermost = [
        (begin, end)
        for begin, end in loops
        if not any((begin, end) != (b, e) and begin <= b and e <= end for b, e in loops)
    ]
    # A program ends in a loop of one branch to itself, which is never entered.
    return max((end - begin for begin, end in innermost if end - begin > 1), default=0)


def _read(files: dict[str, str], suffix: str) -> str:
    return next(Path(path).read_text() for name, path in files.items() if name.endswith(suffix))


def reductions(ir: str) -> frozenset[str]:
    """Return what decides the order in which `tl.sum(x, 1)` adds: not the number of rows."""
    layouts = dict(re.findall(r"^(#\w+) = (.*)$", ir, re.M))
    found = re.findall(r"\}\) : \(tensor<\d+x(\d+)x\w+, (#\w+)>\)", ir)
    down_the_rows = r"(?<=warpsPerCTA = \[)\d+(?=, )"
    return frozenset(
        f"{count} in {re.sub(down_the_rows, '_', layouts[name])}" for count, name in found
    )


def _run(tool: str, path: Path, *flags: str) -> str:
    command = [str(_TOOLS / tool), *flags, str(path)]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def _field(assembly: str, key: str) -> int:
    found = re.search(rf"\.{key}:\s+(\d+)", assembly)
    assert found is not None, key
    return int(found[1])


def _bits(load: str) -> int:
    """Return the width of a load by its name: LDG.E.128, LDGSTS.E.BYPASS.LTC128B.128, dwordx4."""
    if dwords := re.search(r"dwordx(\d)", load):
        return 32 * int(dwords[1])
    if "dword" in load:
        return 32
    if short := re.search(r"_load_(?:lds_)?(?:[us]?)(byte|short)", load):
        return {"byte": 8, "short": 16}[short[1]]
    if load.startswith("UTMALDG"):
        return 128
    widths = [part for part in load.split(".") if part in {"U8", "S8", "U16", "S16", "64", "128"}]
    return int(re.sub(r"\D", "", widths[-1])) if widths else 32
