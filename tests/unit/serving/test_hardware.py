from __future__ import annotations

import os
from pathlib import Path

import pytest

from tgi_cli.runtime.serving.hardware import (
    available_memory_bytes,
    num_cores,
)

MIB = 1 << 20


def machine(root: Path, files: dict[str, str]) -> Path:
    """Write a machine's files; by default 100 MiB are available and no group limits anything."""
    for name, text in {"proc/meminfo": f"MemAvailable: {100 * 1024} kB\n", **files}.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


def test_without_limits_memory_is_what_the_system_has(tmp_path: Path) -> None:
    assert available_memory_bytes(machine(tmp_path, {})) == 100 * MIB


def test_a_containers_limit_counts_less_what_it_uses(tmp_path: Path) -> None:
    root = machine(
        tmp_path,
        {
            "proc/self/cgroup": "0::/\n",
            "sys/fs/cgroup/memory.max": f"{70 * MIB}\n",
            "sys/fs/cgroup/memory.current": f"{30 * MIB}\n",
            "sys/fs/cgroup/memory.stat": f"anon 1\ninactive_file {10 * MIB}\n",
        },
    )

    assert available_memory_bytes(root) == 50 * MIB


def test_the_tightest_group_above_counts(tmp_path: Path) -> None:
    root = machine(
        tmp_path,
        {
            "proc/self/cgroup": "0::/outer/inner\n",
            "sys/fs/cgroup/outer/inner/memory.max": "max\n",
            "sys/fs/cgroup/outer/memory.max": f"{20 * MIB}\n",
        },
    )

    assert available_memory_bytes(root) == 20 * MIB


def test_the_first_version_of_cgroups_is_read_too(tmp_path: Path) -> None:
    root = machine(
        tmp_path,
        {
            "proc/self/cgroup": "5:cpu,cpuacct:/job\n4:memory:/job\n",
            "sys/fs/cgroup/memory/job/memory.limit_in_bytes": f"{40 * MIB}\n",
            "sys/fs/cgroup/memory/job/memory.usage_in_bytes": f"{15 * MIB}\n",
            "sys/fs/cgroup/cpu/job/cpu.cfs_quota_us": "100000\n",
            "sys/fs/cgroup/cpu/job/cpu.cfs_period_us": "100000\n",
        },
    )

    assert available_memory_bytes(root) == 25 * MIB
    assert num_cores(root) == 1


@pytest.mark.parametrize(("quota", "expected"), [("50000 100000", 1), ("150000 100000", 1)])
def test_a_quota_of_part_of_a_core_is_one(tmp_path: Path, quota: str, expected: int) -> None:
    root = machine(tmp_path, {"proc/self/cgroup": "0::/", "sys/fs/cgroup/cpu.max": quota})

    assert num_cores(root) == expected


@pytest.mark.parametrize("quota", ["max 100000", "garbage", ""])
def test_without_a_quota_the_schedulers_cores_count(tmp_path: Path, quota: str) -> None:
    root = machine(tmp_path, {"proc/self/cgroup": "0::/", "sys/fs/cgroup/cpu.max": quota})

    assert num_cores(root) == len(os.sched_getaffinity(0))


def test_more_used_than_allowed_is_nothing_left(tmp_path: Path) -> None:
    root = machine(
        tmp_path,
        {
            "proc/self/cgroup": "0::/",
            "sys/fs/cgroup/memory.max": "10",
            "sys/fs/cgroup/memory.current": "20",
        },
    )

    assert available_memory_bytes(root) == 0
