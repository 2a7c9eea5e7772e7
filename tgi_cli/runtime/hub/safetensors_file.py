"""Read safetensors files, whoever made them.

The header is checked as a whole before anything is allocated for its tensors: sizes, types,
bounds, gaps and overlaps. Format: https://github.com/huggingface/safetensors.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec

from tgi_cli.errors import CorruptModelError
from tgi_cli.runtime.hub.tensor_file import (
    TensorFile,
    TensorInfo,
    check_layout,
    corrupt,
)

MAX_HEADER_BYTES = 100_000_000
_MAX_DIMENSIONS = 16
_MAX_ELEMENTS = 1 << 48
_LENGTH_BYTES = 8

ITEM_BYTES = {
    "F64": 8,
    "F32": 4,
    "F16": 2,
    "BF16": 2,
    "I64": 8,
    "I32": 4,
    "I16": 2,
    "I8": 1,
    "U64": 8,
    "U32": 4,
    "U16": 2,
    "U8": 1,
    "BOOL": 1,
    "F8_E4M3": 1,
    "F8_E5M2": 1,
}


class UnknownDtypeError(CorruptModelError):
    """A tensor of no type that is known here: newer than this reader, or no type at all."""


class SafetensorsFile(TensorFile):
    """One file, its header checked.

    Raises:
        ModelNotFoundError: no such file.
        CorruptModelError: the file isn't what its header says, or has no proper header.
    """

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        if len(self._data) < _LENGTH_BYTES:
            raise corrupt(path, f"{len(self._data)} bytes are too few for a header")
        header_bytes = int.from_bytes(self._data[:_LENGTH_BYTES], "little")
        data_start = _LENGTH_BYTES + header_bytes
        if header_bytes > MAX_HEADER_BYTES or data_start > len(self._data):
            raise corrupt(
                path,
                f"the header claims {header_bytes} bytes; the file has {len(self._data)} "
                f"and the limit is {MAX_HEADER_BYTES}",
            )
        header = _decode_header(path, self._data[_LENGTH_BYTES:data_start])
        header.pop("__metadata__", None)
        self.tensors = {
            name: _tensor_info(path, name, entry, data_start) for name, entry in header.items()
        }
        check_layout(path, self.tensors, data_start, len(self._data))
        self._check_no_gaps(data_start)

    def _check_no_gaps(self, data_start: int) -> None:
        covered = data_start + sum(info.num_bytes for info in self.tensors.values())
        if covered != len(self._data):
            raise corrupt(
                self.path,
                f"its tensors cover {covered - data_start} bytes of {len(self._data) - data_start}",
            )


def _decode_header(path: Path, raw: memoryview) -> dict[str, Any]:
    try:
        header = msgspec.json.decode(raw)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as exc:
        raise corrupt(path, "the header isn't JSON") from exc
    if not isinstance(header, dict):
        raise corrupt(path, "the header isn't a JSON object")
    return header


def _tensor_info(path: Path, name: str, entry: object, data_start: int) -> TensorInfo:
    if not isinstance(entry, dict):
        raise corrupt(path, "its header entry isn't an object", name)
    dtype: Any = entry.get("dtype")
    shape: Any = entry.get("shape")
    offsets: Any = entry.get("data_offsets")
    if not isinstance(dtype, str) or dtype not in ITEM_BYTES:
        raise UnknownDtypeError(corrupt(path, f"unknown dtype {dtype!r}", name).message)
    if not _are_counts(shape) or len(shape) > _MAX_DIMENSIONS:
        raise corrupt(path, "its shape isn't a list of sizes", name)
    if not _are_counts(offsets) or len(offsets) != 2:
        raise corrupt(path, "its data_offsets aren't two offsets", name)
    begin, end = offsets
    info = TensorInfo(name, dtype, tuple(shape), data_start + begin, end - begin)
    expected = info.num_elements * ITEM_BYTES[dtype]
    if info.num_elements > _MAX_ELEMENTS or info.num_bytes != expected:
        raise corrupt(
            path, f"shape {shape} of {dtype} needs {expected} bytes, has {info.num_bytes}", name
        )
    return info


def _are_counts(value: Any) -> bool:
    return isinstance(value, list) and all(type(n) is int and n >= 0 for n in value)
