"""How far the way to a GPU is there: cards, driver, libraries. Imports none of them, never raises.

A machine without cards costs a few file reads; with one, the driver is asked by `gpu_probe.py`.
"""

from __future__ import annotations

import ast
import os
import shutil
import subprocess
import sys
import sysconfig
from importlib.util import find_spec
from pathlib import Path

import msgspec

from tgi_cli.runtime.config.facts import DriverFacts, GpuStack, Maker

_PROBE = "tgi_cli.runtime.serving.gpu_probe"
_PROBE_TIMEOUT_S = 60.0  # eight cards whose driver wasn't kept loaded take a quarter of that
_MAKERS: dict[str, Maker] = {"0x10de": "NVIDIA", "0x1002": "AMD"}
_DISPLAY = ("0x0300", "0x0302", "0x0380", "0x1200")  # PCI classes of GPUs, and of accelerators
# There where the bus isn't shown, as in some containers and in Windows' Linux.
_DEVICE_FILES: tuple[tuple[str, Maker], ...] = (
    ("dev/nvidiactl", "NVIDIA"),
    ("usr/lib/wsl/lib/libcuda.so.1", "NVIDIA"),
    ("dev/kfd", "AMD"),
)


def read_gpus(cuda_visible_devices: str | None, root: Path = Path("/")) -> GpuStack:
    """Return what there is; `root` is where /dev and /sys are."""
    maker = find_maker(root)
    if maker is None:
        return GpuStack()
    cuda, rocm = torch_builds()
    return GpuStack(
        maker=maker,
        driver=ask_driver(maker, cuda_visible_devices),
        torch_cuda=cuda,
        torch_rocm=rocm,
        has_triton=is_installed("triton"),
        has_compiler=any(map(shutil.which, _compilers())),
        has_python_headers=(Path(sysconfig.get_path("include")) / "Python.h").exists(),
        has_flash_attn=is_installed("flash_attn"),
        has_flashinfer=is_installed("flashinfer"),
    )


def find_maker(root: Path) -> Maker | None:
    """Return who made the machine's GPUs, NVIDIA if both did."""
    found = {maker for name, maker in _DEVICE_FILES if (root / name).exists()}
    for device in (root / "sys/bus/pci/devices").glob("*"):
        if _word(device / "class")[:6] in _DISPLAY:
            maker = _MAKERS.get(_word(device / "vendor"))
            if maker == "NVIDIA":  # AMD's may be a picture on a screen: its compute driver counts
                found.add(maker)
    return "NVIDIA" if "NVIDIA" in found else "AMD" if found else None


def ask_driver(maker: Maker, cuda_visible_devices: str | None) -> DriverFacts:
    """Return what the driver of that maker says, or why it can't be asked."""
    environ = dict(os.environ)
    if cuda_visible_devices is not None:
        environ["CUDA_VISIBLE_DEVICES"] = cuda_visible_devices
    try:
        done = subprocess.run(
            [sys.executable, "-P", "-m", _PROBE, maker],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            env=environ,
            timeout=_PROBE_TIMEOUT_S,
        )
        return msgspec.json.decode(done.stdout, type=DriverFacts)
    except subprocess.TimeoutExpired:
        return DriverFacts(error=f"it hasn't answered for {_PROBE_TIMEOUT_S:.0f} seconds")
    except (OSError, msgspec.DecodeError):
        return DriverFacts(error="asking it ended in a crash")


def torch_builds() -> tuple[str | None, str | None]:
    """Return the versions of CUDA and of ROCm that the installed torch was built for."""
    spec = find_spec("torch")
    if spec is None or spec.origin is None:
        return None, None
    try:
        tree = ast.parse(Path(spec.origin).with_name("version.py").read_text(encoding="utf-8"))
    except (OSError, ValueError, SyntaxError):
        return None, None
    values: dict[str, str | None] = {"cuda": None, "hip": None}
    for node in tree.body:
        match node:
            case ast.Assign(targets=[ast.Name(id=name)], value=ast.Constant(value=value)):
                pass
            case ast.AnnAssign(target=ast.Name(id=name), value=ast.Constant(value=value)):
                pass
            case _:
                continue
        if name in values and isinstance(value, str):
            values[name] = value
    return values["cuda"], values["hip"]


def _compilers() -> list[str]:
    """Return the names under which Triton looks for one."""
    asked = os.environ.get("CC")
    return [asked] if asked else ["gcc", "clang"]


def is_installed(package: str) -> bool:
    return find_spec(package) is not None


def _word(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8").strip()
    except OSError:
        return ""
