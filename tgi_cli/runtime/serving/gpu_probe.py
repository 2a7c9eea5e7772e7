"""Ask the driver for its GPUs, and print what it says as JSON: a program of its own.

It runs in a process of its own because a driver keeps memory and threads once it was asked, and
may crash or hang; nothing of torch is imported. Sources: CUDA Driver API (libcuda.so.1), and for
AMD the topology that the kernel shows (Linux, Documentation/gpu/amdgpu and kfd_topology.c).
"""

from __future__ import annotations

import ctypes
import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

_NO_DEVICE = 100  # CUDA_ERROR_NO_DEVICE: none, or CUDA_VISIBLE_DEVICES leaves none
_MAJOR, _MINOR = 75, 76  # CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_*
_NODES = Path("sys/class/kfd/kfd/topology/nodes")

Report = dict[str, Any]  # a facts.DriverFacts


class _DriverError(Exception):
    pass


class _Cuda:
    """The calls that we need of libcuda. Raises `_DriverError` for whatever it refuses."""

    def __init__(self, library: ctypes.CDLL) -> None:
        self._library = library
        self._call("cuInit", ctypes.c_uint(0))

    def version(self) -> tuple[int, int]:
        number = ctypes.c_int()
        self._call("cuDriverGetVersion", ctypes.byref(number))
        return number.value // 1000, number.value % 1000 // 10  # 12040 is 12.4

    def gpus(self) -> Iterator[Report]:
        count = ctypes.c_int()
        self._call("cuDeviceGetCount", ctypes.byref(count))
        for index in range(count.value):
            device, name, total = (
                ctypes.c_int(),
                ctypes.create_string_buffer(256),
                ctypes.c_size_t(),
            )
            self._call("cuDeviceGet", ctypes.byref(device), ctypes.c_int(index))
            self._call("cuDeviceGetName", name, ctypes.c_int(len(name)), device)
            self._call("cuDeviceTotalMem_v2", ctypes.byref(total), device)
            arch = f"sm_{self._attribute(_MAJOR, device)}{self._attribute(_MINOR, device)}"
            text = name.value.decode(errors="replace")
            yield {"name": text, "arch": arch, "total_bytes": total.value}

    def _attribute(self, which: int, device: ctypes.c_int) -> int:
        value = ctypes.c_int()
        self._call("cuDeviceGetAttribute", ctypes.byref(value), ctypes.c_int(which), device)
        return value.value

    def _call(self, name: str, *args: Any) -> None:
        code = getattr(self._library, name)(*args)
        if code:
            text = ctypes.c_char_p()
            self._library.cuGetErrorName(ctypes.c_int(code), ctypes.byref(text))
            raise _DriverError(code, (text.value or b"error").decode(errors="replace"))


def ask_nvidia() -> Report:
    """Return what libcuda says, honouring CUDA_VISIBLE_DEVICES as it does."""
    try:
        library = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return {"error": "libcuda.so.1 can't be loaded"}
    try:
        cuda = _Cuda(library)
        return {"gpus": list(cuda.gpus()), "cuda_version": cuda.version()}
    except _DriverError as exc:
        code, name = exc.args
        return {} if code == _NO_DEVICE else {"error": f"it says {name} ({code})"}
    except AttributeError:  # a library without these functions
        return {"error": "libcuda.so.1 isn't a CUDA driver"}


def ask_amd(root: Path = Path("/")) -> Report:
    """Return the GPUs that the kernel's amdgpu driver shows, in their order."""
    nodes = (root / _NODES).glob("*")
    gpus = [gpu for node in sorted(nodes, key=lambda node: int(node.name)) if (gpu := _node(node))]
    return {"gpus": [gpus[index] for index in _visible(len(gpus))]}


def _node(node: Path) -> Report | None:
    """Read a node of the topology; None for a CPU."""
    numbers = _numbers(node / "properties")
    version = numbers.get("gfx_target_version", 0)  # 90402 is gfx942: the last two digits are hex
    if numbers.get("simd_count", 0) == 0 or version == 0:
        return None
    banks = (_numbers(bank) for bank in node.glob("mem_banks/*/properties"))
    arch = f"gfx{version // 10_000}{version // 100 % 100:x}{version % 100:x}"
    return {
        "name": f"AMD {arch}",
        "arch": arch,
        "total_bytes": sum(bank.get("size_in_bytes", 0) for bank in banks),
    }


def _numbers(path: Path) -> dict[str, int]:
    """Read lines of a name and a number; none of a file that isn't ours to read."""
    try:
        text = path.read_text(encoding="utf-8")
    except OSError:
        return {}
    pairs = (line.split() for line in text.splitlines())
    return {pair[0]: int(pair[1]) for pair in pairs if len(pair) == 2 and pair[1].isdigit()}


def _visible(num_gpus: int) -> list[int]:
    """Return the numbers that CUDA_VISIBLE_DEVICES leaves, which ROCm reads too."""
    listed = os.environ.get("HIP_VISIBLE_DEVICES") or os.environ.get("CUDA_VISIBLE_DEVICES")
    if listed is None:
        return list(range(num_gpus))
    found: list[int] = []
    for entry in listed.split(","):
        if not entry.strip().isdigit() or int(entry) >= num_gpus:
            break
        found.append(int(entry))
    return found


def main() -> int:
    """Print the report for the maker that the argument names."""
    report = ask_amd() if sys.argv[1:] == ["AMD"] else ask_nvidia()
    print(json.dumps(report))
    return 0


if __name__ == "__main__":
    sys.exit(main())
