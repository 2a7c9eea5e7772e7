"""What a worker manages on this machine, as `tgi bench calibrate` has found and stored it.

Keyed by processor, Python and the libraries that do the work. Spec: bench.md section 11.
"""

from __future__ import annotations

import os
import platform
from pathlib import Path

import aiohttp
import msgspec

from tgi_cli.runtime.bench.facts import cpu_model


def _path() -> Path:
    cache = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(cache).expanduser() / "tgi" / "bench-calibration.json"


def machine_key() -> str:
    """Return what a calibration is valid for."""
    parts = (cpu_model(), platform.python_version(), aiohttp.__version__, msgspec.__version__)
    return " | ".join(parts)


def read_calibration() -> dict[str, float] | None:
    """Return this machine's figures; None if it was never calibrated."""
    try:
        stored = msgspec.json.decode(_path().read_bytes(), type=dict[str, dict[str, float]])
    except (OSError, msgspec.DecodeError):
        return None
    return stored.get(machine_key())


def write_calibration(figures: dict[str, float]) -> Path:
    """Store this machine's figures; return where. Raises `OSError`."""
    path = _path()
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        stored = msgspec.json.decode(path.read_bytes(), type=dict[str, dict[str, float]])
    except (OSError, msgspec.DecodeError):
        stored = {}
    beside = path.with_suffix(f".{os.getpid()}.part")
    beside.write_bytes(msgspec.json.encode(stored | {machine_key(): figures}))
    beside.replace(path)
    return path
