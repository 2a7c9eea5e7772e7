"""The converting process: one job on its standard input, events on its standard output.

It limits its own memory and time before it opens a file, and ends when its parent does.
"""

from __future__ import annotations

import os
import resource
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import msgspec

from tgi_cli.runtime.hub.convert.from_gguf import plan_gguf
from tgi_cli.runtime.hub.convert.from_lora import plan_lora
from tgi_cli.runtime.hub.convert.from_pickles import plan_pickles
from tgi_cli.runtime.hub.convert.messages import Event, Job, Kind, failure
from tgi_cli.runtime.hub.convert.plan import Plan, execute

_PLANS: dict[Kind, Callable[[Job], Plan]] = {
    "pickle": plan_pickles,
    "gguf": plan_gguf,
    "lora": plan_lora,
}
# Beside the largest file, which may be mapped privately or held in memory, and once more for each
# of a tensor's copies: as read, as fp32, as written.
_BASE_BYTES = 4 << 30
_COPIES = 4
_BASE_CPU_S = 600
_SLOWEST_BYTES_PER_S = 2 << 20


def main() -> None:
    # Libraries may print: what the parent reads is another descriptor.
    sink = os.fdopen(os.dup(1), "wb", buffering=0)
    os.dup2(2, 1)

    def send(event: Event) -> None:
        sink.write(msgspec.json.encode(event) + b"\n")

    job = msgspec.json.decode(sys.stdin.buffer.readline(), type=Job)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    _limit_resources(job)
    try:
        send(execute(_PLANS[job.kind](job), job, send))
    except Exception as exc:
        send(failure(exc))


def _end_with_parent() -> None:
    while os.read(0, 1):  # not through sys.stdin, whose lock Python wants when it ends
        pass
    os._exit(1)


def _limit_resources(job: Job) -> None:
    sizes = [size for path in (job.source, job.base) if path for size in _file_sizes(Path(path))]
    _limit(resource.RLIMIT_CORE, 0)
    _limit(resource.RLIMIT_DATA, _BASE_BYTES + _COPIES * max(sizes, default=0))
    _limit(resource.RLIMIT_CPU, _BASE_CPU_S + sum(sizes) // _SLOWEST_BYTES_PER_S)


def _file_sizes(path: Path) -> list[int]:
    files = [path] if path.is_file() else path.iterdir() if path.is_dir() else []
    return [file.stat().st_size for file in files if file.is_file()]


def _limit(kind: int, value: int) -> None:
    _, hard = resource.getrlimit(kind)
    if hard != resource.RLIM_INFINITY:
        value = min(value, hard)
    resource.setrlimit(kind, (value, value))


if __name__ == "__main__":
    main()
