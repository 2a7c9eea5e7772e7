"""What the client runs on, for the result and the calibration's key."""

from __future__ import annotations

import ipaddress
import os
import platform
import socket
from pathlib import Path
from urllib.parse import urlsplit

from tgi_cli.runtime.bench.result import ClientFacts

_CORES_FOR_TWO = 4  # spec/bench.md section 11


def client_facts(num_workers: int, calibration: dict[str, float] | None) -> ClientFacts:
    """Return the facts of this machine."""
    return ClientFacts(
        host=socket.gethostname(),
        cpu=cpu_model(),
        cores=num_cores(),
        kernel=platform.release(),
        python=platform.python_version(),
        workers=num_workers,
        calibration=calibration,
    )


def num_cores() -> int:
    """Return how many cores this process may use."""
    return len(os.sched_getaffinity(0))


def is_on_small_host(url: str) -> bool:
    """Whether the server is reached by loopback on a machine with few cores for two."""
    host = urlsplit(url).hostname or ""
    try:
        is_here = ipaddress.ip_address(host).is_loopback
    except ValueError:
        is_here = host == "localhost"
    return is_here and num_cores() < _CORES_FOR_TWO


def cpu_model() -> str:
    """Return the processor's name, its architecture where the kernel gives none."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.machine())
