"""What the converting process is told, and what it tells: one JSON object a line."""

from __future__ import annotations

import errno
from typing import Literal

import msgspec

from tgi_cli.errors import TgiError
from tgi_cli.runtime.config.model_config import Dtype

Kind = Literal["pickle", "gguf", "lora"]
DISK_FULL = frozenset({errno.ENOSPC, errno.EDQUOT})
Stage = Literal["hash", "write", "check"]


class Job(msgspec.Struct, frozen=True, kw_only=True):
    """One conversion. Paths are absolute."""

    kind: Kind
    source: str
    base: str | None = None  # lora: the folder of the model below
    into: str
    dtype: Dtype | None = None  # None: as stored, and bfloat16 for GGUF
    shard_size_bytes: int


class Progress(msgspec.Struct, frozen=True, kw_only=True, tag="progress"):
    """How far a stage is. The stages come in the order of `Stage`."""

    stage: Stage
    name: str  # of the file or tensor that was done last
    done_bytes: int
    total_bytes: int


class Converted(msgspec.Struct, frozen=True, kw_only=True, tag="converted"):
    """A finished conversion."""

    folder: str
    files: tuple[str, ...]  # names of the safetensors files in it
    num_tensors: int
    num_bytes: int  # of all tensors
    source_bytes: int  # of the files that they were made of
    aliases: dict[str, str] = {}  # tied tensors: the name left out, and the one it is kept under
    notes: tuple[str, ...] = ()  # sentences for the user


class Failed(msgspec.Struct, frozen=True, kw_only=True, tag="failed"):
    """Why there is no result: one line, and the fix if there is one."""

    message: str
    hint: str | None = None
    is_disk_full: bool = False


Event = Progress | Converted | Failed


def failure(exc: Exception) -> Failed:
    """Return what the parent is told of an exception: never a foreign one's text."""
    if isinstance(exc, TgiError):
        return Failed(message=exc.message, hint=exc.hint)
    if isinstance(exc, OSError):
        is_full = exc.errno in DISK_FULL
        return Failed(message=f"The conversion failed: {exc.strerror}.", is_disk_full=is_full)
    if isinstance(exc, MemoryError):
        return Failed(message="The conversion needs more memory than files of this size can.")
    return Failed(message=f"The conversion failed ({type(exc).__name__}).")
