"""One download of a repository at a time, over all processes of the machine."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import Timeout  # the lock of the hub's client
from huggingface_hub.utils import WeakFileLock  # type: ignore[attr-defined]

from tgi_cli.runtime.hub.download.partial_file import disk_error

_AT_ONCE_S = 0.1


@contextmanager
def repository_lock(path: Path, say: Callable[[str], None]) -> Iterator[None]:
    """Hold the lock; if another process has it, say so and wait.

    Raises:
        StartError: the lock's file can't be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            lock = WeakFileLock(path, timeout=_AT_ONCE_S)
            lock.__enter__()
        except Timeout:
            say("another process downloads this model; waiting for it")
            lock = WeakFileLock(path)
            lock.__enter__()
    except OSError as exc:
        raise disk_error(exc, path.name, path.parent) from exc
    try:
        yield
    finally:
        lock.__exit__(None, None, None)
