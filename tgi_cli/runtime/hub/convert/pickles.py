"""Read what `torch.save` wrote, and nothing else that a pickle could hold.

`torch.load` with `weights_only` builds tensors and plain containers, and refuses every other name
in the pickle before it is looked up. New files (zip archives) are mapped, so a tensor's bytes are
read when they are written and let go after; files from before torch 1.6 are held in memory whole.
What a file claims is held against its size first: lengths beyond its end, compressed records and
views that repeat a few bytes for ever are refused.
"""

from __future__ import annotations

import ctypes
import mmap
import re
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from tgi_cli.errors import ConversionError
from tgi_cli.runtime.hub.convert.dtypes import SAFETENSORS_DTYPES
from tgi_cli.runtime.hub.safetensors_writer import METADATA_NAME

_ZIP_MAGIC = b"PK\x03\x04"
_MAX_PICKLE_BYTES = 1 << 28  # the pickle names tensors; their bytes are records of their own
_ROOM_BYTES = 1 << 26  # what tensors may claim beyond twice the file: expanded masks and the like
_MADV_DONTNEED = 4  # Linux

_REFUSED_NAME = re.compile(r"GLOBAL ([\w.]+)")


class PickleFile:
    """The tensors of one file, by name.

    Raises:
        ConversionError: it isn't a checkpoint, or is more than one, or is damaged.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        with path.open("rb") as file:
            self._is_mapped = file.read(len(_ZIP_MAGIC)) == _ZIP_MAGIC
        records = _record_sizes(path) if self._is_mapped else None
        loaded = _load(path, is_mapped=self._is_mapped)
        self.tensors: dict[str, Tensor] = {}
        self.skipped: list[str] = []  # entries that are no tensors
        for name, value in _state_dict(path, loaded).items():
            if isinstance(value, Tensor):
                self.tensors[name] = value.detach()
            else:
                self.skipped.append(name)
        self._check(records)

    def release(self, name: str) -> None:
        """Drop a tensor's pages; they are read again from the file when they are wanted."""
        if not self._is_mapped:
            return
        storage = self.tensors[name].untyped_storage()
        start = -(-storage.data_ptr() // mmap.PAGESIZE) * mmap.PAGESIZE
        end = (storage.data_ptr() + storage.nbytes()) // mmap.PAGESIZE * mmap.PAGESIZE
        if end > start:
            ctypes.CDLL(None).madvise(
                ctypes.c_void_p(start), ctypes.c_size_t(end - start), _MADV_DONTNEED
            )

    def _check(self, records: set[int] | None) -> None:
        file_bytes = self.path.stat().st_size
        claimed = 0
        for name, tensor in self.tensors.items():
            if name == METADATA_NAME:
                raise self._wrong(name, "has a name that safetensors reserves")
            if tensor.layout is not torch.strided or tensor.is_meta or tensor.is_quantized:
                raise self._wrong(name, "isn't a plain tensor")
            if tensor.dtype not in SAFETENSORS_DTYPES:
                kind = str(tensor.dtype).removeprefix("torch.")
                raise self._wrong(name, f"is of type {kind}, which safetensors can't hold")
            # The library cuts a length that goes beyond the file, or reads on into the neighbour.
            if records is not None and tensor.untyped_storage().nbytes() not in records:
                raise self._wrong(name, "claims another length than its record has")
            claimed += tensor.numel() * tensor.element_size()
        if claimed > 2 * file_bytes + _ROOM_BYTES:
            raise ConversionError(
                f"{self.path.name}: its tensors claim {claimed} bytes; the file has {file_bytes}."
            )

    def _wrong(self, tensor: str, reason: str) -> ConversionError:
        return ConversionError(f"{self.path.name}: tensor {tensor!r} {reason}.")


def _load(path: Path, *, is_mapped: bool) -> object:
    try:
        return torch.load(path, map_location="cpu", weights_only=True, mmap=is_mapped)
    except Exception as exc:  # a broken or hostile pickle can make the library raise anything
        if match := _REFUSED_NAME.search(str(exc)):
            raise ConversionError(
                f"{path.name}: refused: the pickle wants {match.group(1)[:80]}, which isn't part "
                "of tensors. Nothing from it was run.",
                hint="Use a safetensors version of the model.",
            ) from exc
        if "TorchScript" in str(exc):
            reason = "a TorchScript program, not a checkpoint"
        elif type(exc).__name__ == "UnpicklingError":
            reason = "refused: its pickle holds more than tensors"
        else:
            reason = "can't be read as a checkpoint; the file is truncated or damaged"
        raise ConversionError(f"{path.name}: {reason}.", hint="Download the file again.") from exc


def _state_dict(path: Path, loaded: object) -> Mapping[str, Any]:
    if isinstance(loaded, dict) and isinstance(loaded.get("state_dict"), dict):
        loaded = loaded["state_dict"]  # as trainers save it, beside their own notes
    if not isinstance(loaded, dict) or not all(isinstance(name, str) for name in loaded):
        raise ConversionError(f"{path.name}: not a dictionary of tensors.")
    if not any(isinstance(value, Tensor) for value in loaded.values()):
        raise ConversionError(f"{path.name}: there is no tensor in it.")
    return loaded


def _record_sizes(path: Path) -> set[int]:
    """Check an archive's directory; return the sizes of its records."""
    file_bytes = path.stat().st_size
    try:
        with zipfile.ZipFile(path) as archive:
            entries = archive.infolist()
            _check_records(path, entries, file_bytes)
            order = [archive.read(e) for e in entries if e.filename.endswith("/byteorder")]
    except ConversionError:
        raise
    except Exception as exc:  # zipfile trusts what it reads, and stumbles in many ways
        raise ConversionError(
            f"{path.name}: the archive has no directory or a broken one; the file is truncated or "
            "damaged.",
            hint="Download the file again.",
        ) from exc
    if order and order[0] != b"little":
        raise ConversionError(f"{path.name}: its numbers are big endian.")
    return {entry.file_size for entry in entries}


def _check_records(path: Path, entries: list[zipfile.ZipInfo], file_bytes: int) -> None:
    for entry in entries:
        if entry.compress_type != zipfile.ZIP_STORED:
            raise ConversionError(
                f"{path.name}: record {entry.filename[:80]!r} is compressed; checkpoints aren't."
            )
        is_beyond = entry.header_offset + entry.file_size > file_bytes
        is_pickle = entry.filename.endswith(".pkl")
        if is_beyond or (is_pickle and entry.file_size > _MAX_PICKLE_BYTES):
            raise ConversionError(
                f"{path.name}: record {entry.filename[:80]!r} claims {entry.file_size} bytes, "
                "more than there can be."
            )
