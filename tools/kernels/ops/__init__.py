"""The workloads of each operation, one file each; every file here is found by name."""

from __future__ import annotations

import importlib
import pkgutil

from tools.kernels.workload import Workload


def all_workloads(pattern: str = "") -> list[Workload]:
    """Return the workloads of the operations whose name contains `pattern`."""
    names = sorted(module.name for module in pkgutil.iter_modules(__path__))
    return [
        workload
        for name in names
        if pattern in name
        for workload in importlib.import_module(f"{__name__}.{name}").WORKLOADS
    ]
