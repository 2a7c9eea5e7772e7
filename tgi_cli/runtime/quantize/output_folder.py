"""The folder that gets the result: refused before any work if the result couldn't be put there.

The result is made beside it and moved to its name, which neither a link nor a mount point can give
up. What the disk does later is told in words; the work that is stored by then is good.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tgi_cli.errors import ArgumentError, DiskSpaceError, StartError
from tgi_cli.runtime.hub.convert.messages import DISK_FULL
from tgi_cli.runtime.quantize.work_folder import partial_folder


def check_output(model: str, asked: str) -> Path:
    """Return the output's absolute path.

    Raises:
        ArgumentError: it isn't a new or an empty folder outside the model, or can't become one.
    """
    output = Path(os.path.expanduser(asked)).absolute()
    if not asked or output.name in ("", ".."):
        raise ArgumentError(f"OUTPUT {asked!r} doesn't name a folder to make.")
    try:
        _check_place(output)
        _check_parent(output)
    except OSError as exc:  # a name that is too long, a folder that may not be looked into
        raise ArgumentError(f"{output.name}: can't be written ({exc.strerror}).") from exc
    source = Path(os.path.expanduser(model))
    if source.is_dir() and output.resolve().is_relative_to(source.resolve()):
        raise ArgumentError(f"{output.name}: the output can't be in the model's own folder.")
    return output


@contextmanager
def disk_errors(output: Path, *, can_resume: bool) -> Iterator[None]:
    """Say in words what the disk does."""
    again = "go on with --resume" if can_resume else "start again"
    try:
        yield
    except OSError as exc:
        work = partial_folder(output).name
        if exc.errno in DISK_FULL | {errno.EFBIG}:
            raise DiskSpaceError(
                f"The disk is full: {work} can't grow ({exc.strerror}).",
                hint=f"Free space and {again}.",
            ) from exc
        name = output.name if exc.filename is None else Path(os.fsdecode(exc.filename)).name
        raise StartError(
            f"{name}: {exc.strerror or type(exc).__name__}.",
            hint=f"Mend that and {again}.",
        ) from exc


def _check_place(output: Path) -> None:
    if output.is_symlink():
        raise ArgumentError(
            f"{output.name}: the output can't be a link.", hint="Name the folder it leads to."
        )
    if output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise ArgumentError(
            f"{output.name}: the output must be a new or an empty folder.",
            hint="Remove it, or write somewhere else.",
        )
    if output.is_mount():
        raise ArgumentError(
            f"{output.name}: the output can't be a mount point.", hint="Name a folder in it."
        )


def _check_parent(output: Path) -> None:
    partial_folder(output).exists()  # raises if its name, which is longer, is too long
    parent = output.parent
    while not parent.exists():
        parent = parent.parent
    if not parent.is_dir():
        raise ArgumentError(f"{output.name}: {parent.name} is a file, not a folder.")
    if not os.access(parent, os.W_OK | os.X_OK):
        raise ArgumentError(
            f"{output.name}: there is no right to write into {parent.name or parent}."
        )
