"""What a server runs on, for `--env` and for reports of defects: versions, CPU, GPUs."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
from importlib import metadata
from pathlib import Path

from tgi_cli import __version__
from tgi_cli.runtime.config.device import machine_obstacle
from tgi_cli.runtime.config.facts import GpuStack, HardwareFacts
from tgi_cli.runtime.config.options import ServeOptions
from tgi_cli.runtime.config.start_notes import show_bytes

_LIBRARIES = ("torch", "triton", "tokenizers", "llguidance", "aiohttp", "huggingface_hub")
_NVIDIA_SMI_TIMEOUT_S = 10.0


def environment_report(options: ServeOptions, hardware: HardwareFacts) -> list[str]:
    """Return the report's lines. They hold no path, no address and no secret."""
    return [
        "Runtime environment:",
        f"Version: {__version__}",
        f"Target: {platform.machine()}-{platform.system().lower()}",
        f"Python version: {platform.python_version()}",
        *(f"{name}: {_version(name)}" for name in _LIBRARIES),
        f"Commit sha: {options.build_sha or 'N/A'}",
        f"Docker label: {options.docker_label or 'N/A'}",
        f"CPU: {_cpu_name()}, {hardware.num_cores} of {os.cpu_count()} cores",
        f"Memory available: {show_bytes(hardware.available_memory_bytes)}",
        f"Native kernels: {'built' if hardware.has_native_kernels else 'not built'}",
        f"GPUs: {_gpus(hardware.gpus)}",
        "nvidia-smi:",
        *_nvidia_smi(),
    ]


def _version(library: str) -> str:
    try:
        return metadata.version(library)
    except metadata.PackageNotFoundError:
        return "not installed"


def _cpu_name() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            name, _, value = line.partition(":")
            if name.strip() == "model name":
                return value.strip()
    except OSError:
        pass
    return platform.processor() or "unknown"


def _gpus(gpus: GpuStack) -> str:
    """List what the driver shows, and say what is in the way of using it."""
    shown = [f"{gpu.name} ({gpu.arch}, {show_bytes(gpu.total_bytes)})" for gpu in gpus.driver.gpus]
    obstacle = machine_obstacle(gpus)
    if not shown:
        return obstacle or ""
    return ", ".join(shown) + (f"; not used: {obstacle}" if obstacle else "")


def _nvidia_smi() -> list[str]:
    program = shutil.which("nvidia-smi")
    if program is None:
        return ["N/A"]
    try:
        listing = subprocess.run(
            [program], capture_output=True, text=True, timeout=_NVIDIA_SMI_TIMEOUT_S, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return ["N/A"]
    return listing.stdout.strip().splitlines()
