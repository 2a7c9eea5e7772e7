"""Whether the files will fit, before the first byte is fetched."""

from __future__ import annotations

import os
from pathlib import Path

from tgi_cli.errors import DiskSpaceError
from tgi_cli.runtime.hub.download.progress import size_text


def free_bytes(folder: Path) -> int:
    """Return what may still be written on the file system of `folder`, which needn't exist yet."""
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    state = os.statvfs(folder)
    return state.f_bavail * state.f_frsize


def check_space(what: str, folder: Path, num_needed: int, num_spare: int) -> None:
    """Check that `num_needed` more bytes fit and `num_spare` stay free.

    Raises:
        DiskSpaceError: they don't; it says by how much.
    """
    free = free_bytes(folder)
    if num_needed == 0 or num_needed + num_spare <= free:
        return
    short = num_needed + num_spare - free
    raise DiskSpaceError(
        f"{what}: {size_text(num_needed)} more are needed, with {size_text(num_spare)} to stay "
        f"free, and {folder} has {size_text(free)} free.",
        hint=f"Make room for {size_text(short)}, choose another disk with --cache-dir or HF_HOME, "
        "or go on with --ignore-disk-space.",
    )
