"""Start the converting process, pass on what it tells, and put its result in place.

The process gets an environment without secrets and writes into a hidden folder beside the result.
It is this side that renames it, and that removes whatever another end leaves.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec

from tgi_cli.errors import ConversionError, DiskSpaceError
from tgi_cli.runtime.hub.convert.messages import DISK_FULL, Converted, Event, Failed, Job, Progress
from tgi_cli.runtime.hub.convert.record import is_current, read_record
from tgi_cli.runtime.hub.safetensors_writer import sync

_MODULE = "tgi_cli.runtime.hub.convert"
# Nothing of the environment but what Python needs: tokens stay out, and so do torch's switches.
_KEPT_VARIABLES = ("PATH", "PYTHONPATH", "LD_LIBRARY_PATH", "TZ", "VIRTUAL_ENV", "TMPDIR")


def run_job(job: Job, progress: Callable[[Progress], None] | None) -> Converted:
    """Return the job's result, made now or found.

    Raises:
        ConversionError: it can't be made.
        DiskSpaceError: the disk is full.
    """
    into = Path(job.into)
    try:
        into.parent.mkdir(parents=True, exist_ok=True)
        with _lock(into):
            record = read_record(into)
            if record is not None and is_current(record, into, job):
                return msgspec.structs.replace(record.result, folder=str(into))
            if record is None:
                _check_empty(into)
            return _convert(job, into, progress)
    except OSError as exc:
        if exc.errno in DISK_FULL:
            raise _disk_full(into.parent) from exc
        raise ConversionError(f"{into.parent}: can't be written ({exc.strerror}).") from exc


def _convert(job: Job, into: Path, progress: Callable[[Progress], None] | None) -> Converted:
    partial = _partial_folder(into)
    shutil.rmtree(partial, ignore_errors=True)  # of a conversion that was killed: we have the lock
    try:
        partial.mkdir()
        result = _run_process(job, partial, progress)
        if into.exists():
            shutil.rmtree(into)
        partial.replace(into)
        sync(into.parent)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return msgspec.structs.replace(result, folder=str(into))


def _partial_folder(into: Path) -> Path:
    return into.with_name(f".{into.name}.partial")


@contextlib.contextmanager
def _lock(into: Path) -> Iterator[None]:
    """Let one process at a time work beside `into`; another one waits, and then finds it made."""
    descriptor = os.open(into.parent, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _check_empty(into: Path) -> None:
    if into.exists() and not (into.is_dir() and not any(into.iterdir())):
        raise ConversionError(
            f"{into}: something is there already, and no conversion made it.",
            hint="Give the name of a new folder.",
        )


def _run_process(job: Job, partial: Path, progress: Callable[[Progress], None] | None) -> Converted:
    job = msgspec.structs.replace(job, into=str(partial))
    process = subprocess.Popen(
        (
            sys.executable,
            "-P",  # the current folder may be a model's: import nothing from it
            *("-m", _MODULE),
        ),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env={name: os.environ[name] for name in _KEPT_VARIABLES if name in os.environ},
        start_new_session=True,  # Ctrl-C is for us: the process ends when we do
    )
    assert process.stdin is not None
    assert process.stdout is not None
    end: Converted | Failed | None = None
    try:
        with contextlib.suppress(BrokenPipeError):  # its exit says why
            process.stdin.write(msgspec.json.encode(job) + b"\n")
            process.stdin.flush()
        for line in process.stdout:
            event = msgspec.json.decode(line, type=Event)
            if not isinstance(event, Progress):
                end = event
            elif progress is not None:
                progress(event)
    finally:
        # It reads its input to the end, which comes when we close it or die: then it stops too.
        with contextlib.suppress(BrokenPipeError):
            process.stdin.close()
        if end is None:
            process.kill()
        process.stdout.close()
        code = process.wait()
    if isinstance(end, Converted):
        return end
    if end is None:
        raise ConversionError(f"The conversion {_how_it_ended(code)}.")
    if end.is_disk_full:
        raise _disk_full(partial.parent)
    raise ConversionError(end.message, hint=end.hint)


def _disk_full(folder: Path) -> DiskSpaceError:
    return DiskSpaceError(
        f"{folder}: the disk became full while converting; nothing is left of the conversion.",
        hint="Make room, and start again.",
    )


def _how_it_ended(exit_code: int) -> str:
    if exit_code == -signal.SIGXCPU:
        return "took more CPU time than files of this size can need, and was stopped"
    if exit_code == -signal.SIGKILL:
        return "was killed, perhaps for want of memory"
    return f"ended early (exit code {exit_code})"
