"""Read GGUF files (versions 2 and 3, little endian), whoever made them.

Counts and lengths are bounded by the bytes that are left, so a header can't claim more than the
file holds. Shapes are given outermost first, the reverse of the file. Format: ggml/docs/gguf.md.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tgi_cli.errors import NotAModelError, UnsupportedModelError
from tgi_cli.runtime.hub.tensor_file import (
    TensorFile,
    TensorInfo,
    check_layout,
    corrupt,
)

_MAGIC = b"GGUF"
_MAX_DIMENSIONS = 4
_MAX_ELEMENTS = 1 << 48
_MAX_NESTING = 2  # an array of arrays is already more than any file has

_STRING, _ARRAY, _BOOL = 8, 9, 7
_SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 10: "Q", 11: "q", 12: "d"}

_TYPES = {  # ggml's numbers: name, values and bytes of a block
    0: ("F32", 1, 4),
    1: ("F16", 1, 2),
    2: ("Q4_0", 32, 18),
    3: ("Q4_1", 32, 20),
    8: ("Q8_0", 32, 34),
    12: ("Q4_K", 256, 144),
    13: ("Q5_K", 256, 176),
    14: ("Q6_K", 256, 210),
    30: ("BF16", 1, 2),
}


class GgufFile(TensorFile):
    """One file, its metadata and tensor directory checked.

    Raises:
        ModelNotFoundError: no such file.
        NotAModelError: not a GGUF file, or of a version or byte order that nobody writes any more.
        CorruptModelError: truncated, or contradicts itself.
        UnsupportedModelError: a tensor of a type that can't be read here.
    """

    metadata: Mapping[str, Any]

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        if bytes(self._data[:4]) != _MAGIC:
            raise NotAModelError(f"{path.name}: not a GGUF file.")
        cursor = _Cursor(path, self._data, start=4)
        version = cursor.scalar("I")
        if version not in (2, 3):
            raise NotAModelError(f"{path.name}: GGUF version {version}; this build reads 2 and 3.")
        num_tensors, num_entries = cursor.count(24), cursor.count(13)
        self.metadata = _read_metadata(cursor, num_entries)
        tensors = [_read_tensor(cursor) for _ in range(num_tensors)]
        alignment = self.metadata.get("general.alignment", 32)
        if type(alignment) is not int or not 1 <= alignment <= 1 << 20:
            raise corrupt(path, f"general.alignment is {alignment!r}")
        data_start = -(-cursor.position // alignment) * alignment
        self.tensors = {}
        for name, dtype, shape, offset, num_bytes in tensors:
            if name in self.tensors:
                raise corrupt(path, "stands there twice", name)
            self.tensors[name] = TensorInfo(name, dtype, shape, data_start + offset, num_bytes)
        check_layout(path, self.tensors, data_start, len(self._data))


class _Cursor:
    """Reads forward through bytes that may end at any time."""

    def __init__(self, path: Path, data: memoryview, start: int) -> None:
        self.path = path
        self.position = start
        self._data = data

    def take(self, num_bytes: int) -> memoryview:
        end = self.position + num_bytes
        if end > len(self._data):
            raise corrupt(self.path, f"the header needs byte {end}, the file has {len(self._data)}")
        part = self._data[self.position : end]
        self.position = end
        return part

    def scalar(self, code: str) -> Any:
        return struct.unpack("<" + code, self.take(struct.calcsize("<" + code)))[0]

    def count(self, bytes_each: int) -> int:
        """Read a 64-bit count of things of at least `bytes_each` bytes that are yet to come."""
        count: int = self.scalar("Q")
        if count * bytes_each > len(self._data) - self.position:
            raise corrupt(self.path, f"the header claims {count} entries, more than the file holds")
        return count

    def string(self) -> str:
        raw = self.take(self.count(1))
        try:
            return str(raw, "utf-8")
        except UnicodeDecodeError as exc:
            raise corrupt(self.path, "a string in the header isn't UTF-8") from exc

    def value(self, kind: int, nesting: int = 0) -> Any:
        if kind == _STRING:
            return self.string()
        if kind == _BOOL:
            return self.scalar("B") != 0
        if kind in _SCALARS:
            return self.scalar(_SCALARS[kind])
        if kind == _ARRAY and nesting < _MAX_NESTING:
            return self._array(nesting)
        raise corrupt(self.path, f"unknown metadata type {kind}")

    def _array(self, nesting: int) -> list[Any]:
        kind = self.scalar("I")
        if kind in _SCALARS:
            item_bytes = struct.calcsize("<" + _SCALARS[kind])
            count = self.count(item_bytes)
            raw = self.take(count * item_bytes)
            return list(struct.unpack(f"<{count}{_SCALARS[kind]}", raw))
        count = self.count(1 if kind == _BOOL else 8)
        return [self.value(kind, nesting + 1) for _ in range(count)]


def _read_metadata(cursor: _Cursor, num_entries: int) -> dict[str, Any]:
    metadata: dict[str, Any] = {}
    for _ in range(num_entries):
        key = cursor.string()
        if key in metadata:
            raise corrupt(cursor.path, f"metadata key {key!r} stands there twice")
        metadata[key] = cursor.value(cursor.scalar("I"))
    return metadata


def _read_tensor(cursor: _Cursor) -> tuple[str, str, tuple[int, ...], int, int]:
    """Return name, type, shape, offset in the data, and bytes."""
    name = cursor.string()
    num_dimensions = cursor.scalar("I")
    if num_dimensions > _MAX_DIMENSIONS:
        raise corrupt(cursor.path, f"{num_dimensions} dimensions, limit {_MAX_DIMENSIONS}", name)
    shape = tuple(reversed([cursor.scalar("Q") for _ in range(num_dimensions)]))
    kind, offset = cursor.scalar("I"), cursor.scalar("Q")
    if kind not in _TYPES:
        known = ", ".join(entry[0] for entry in _TYPES.values())
        raise UnsupportedModelError(
            f"{cursor.path.name}: tensor {name!r} has ggml type {kind}; this build reads {known}.",
            hint="Use a file in one of these types, such as Q4_K_M or Q8_0.",
        )
    dtype, block_size, block_bytes = _TYPES[kind]
    num_elements = 1
    for size in shape:
        num_elements *= size
        if num_elements > _MAX_ELEMENTS:
            raise corrupt(cursor.path, f"its shape {shape} is absurd", name)
    if not shape or shape[-1] % block_size:
        raise corrupt(cursor.path, f"rows of {shape} aren't whole blocks of {dtype}", name)
    return name, dtype, shape, offset, num_elements // block_size * block_bytes
