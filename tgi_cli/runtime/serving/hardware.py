"""What this process may use of its machine: cores and memory, as Linux and its cgroups grant them.

A container's limits are in its cgroup, not in /proc, and every level above may be tighter; the
least one counts. Sources: cgroups v2 (Linux, Documentation/admin-guide/cgroup-v2.rst) and v1.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import tgi_cli
from tgi_cli.runtime.config.facts import GpuStack, HardwareFacts

_ROOT = Path("/")
_NATIVE_LIBRARY = Path(tgi_cli.__file__).parent / "kernels" / "native"
_CGROUPS = Path("sys/fs/cgroup")


def read_hardware(root: Path = _ROOT, gpus: GpuStack | None = None) -> HardwareFacts:
    """Return the facts; `root` is where /proc and /sys are, and `gpus` what else is known."""
    return HardwareFacts(
        num_cores=num_cores(root),
        available_memory_bytes=available_memory_bytes(root),
        gpus=gpus or GpuStack(),
        has_native_kernels=any(_NATIVE_LIBRARY.glob("_native*.so")),
    )


def num_cores(root: Path = _ROOT) -> int:
    """Return how many cores the scheduler and the CPU quotas leave to this process, at least 1."""
    cores = [len(os.sched_getaffinity(0))]
    for group in _groups(root, "cpu"):
        quota, period = _cpu_quota(group)
        if quota > 0 and period > 0:
            cores.append(quota // period)
    return max(1, min(cores))


def available_memory_bytes(root: Path = _ROOT) -> int:
    """Return what can be had without swapping or being killed."""
    free = [_meminfo_available(root)]
    for group in _groups(root, "memory"):
        limit = _number(group / "memory.max") or _number(group / "memory.limit_in_bytes")
        used = _number(group / "memory.current") or _number(group / "memory.usage_in_bytes")
        if limit is not None:
            free.append(limit - (used or 0) + _reclaimable(group))
    return max(0, min(free))


def _groups(root: Path, controller: str) -> Iterator[Path]:
    """Yield the folders of this process's cgroup and of those above it."""
    mount = root / _CGROUPS
    own = Path()
    for line in _text(root / "proc/self/cgroup").splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers == "":  # version 2
            own = mount / path.lstrip("/")
            break
        if controller in controllers.split(","):
            mount = mount / controller
            own = mount / path.lstrip("/")
            break
    if own.is_relative_to(mount):
        yield from (folder for folder in (own, *own.parents) if folder.is_relative_to(mount))


def _cpu_quota(group: Path) -> tuple[int, int]:
    """Return microseconds of computing per period, and the period; 0 is no limit."""
    words = _text(group / "cpu.max").split()
    if len(words) == 2 and all(word.isdigit() for word in words):
        return int(words[0]), int(words[1])
    quota, period = _number(group / "cpu.cfs_quota_us"), _number(group / "cpu.cfs_period_us")
    return quota or 0, period or 0


def _reclaimable(group: Path) -> int:
    """Return the bytes of file cache that are counted as used but given back on demand."""
    for line in _text(group / "memory.stat").splitlines():
        name, _, value = line.partition(" ")
        if name in ("inactive_file", "total_inactive_file"):
            return int(value)
    return 0


def _meminfo_available(root: Path) -> int:
    for line in _text(root / "proc/meminfo").splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) * 1024
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")  # a system without /proc


def _number(path: Path) -> int | None:
    """Return the number in a file; None if there is none, as in "max"."""
    text = _text(path).strip()
    return int(text) if text.isdigit() else None


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except OSError:
        return ""
