"""What the converting process is told, and what it tells: one JSON object a line."""

from __future__ import annotations

from typing import Literal

import msgspec

from tgi_cli.runtime.config.model_config import Dtype

Kind = Literal["pickle", "gguf", "lora"]
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


Event = Progress | Converted | Failed
