"""Write safetensors files and sharded checkpoints, one tensor in memory at a time.

Names, types and shapes are given first and make the header; then each tensor's bytes are written
to their place, in any order. The same tensors give the same file: wide types first, so that all are
aligned, and by name among equals. A file has its name only once it is whole and on the disk; an
index is written after the files that it names. Nothing here knows what a number is: tensors are
bytes, little endian. Format: https://github.com/huggingface/safetensors.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Self

import msgspec

from tgi_cli.runtime.hub.safetensors_file import ITEM_BYTES

if TYPE_CHECKING:
    from types import TracebackType

Buffer = bytes | bytearray | memoryview

INDEX_NAME = "model.safetensors.index.json"
METADATA_NAME = "__metadata__"  # in a file's header; no tensor can be called so
_ALIGNMENT = 8  # bytes, of the data's start: the widest item


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """A tensor that will be written. `dtype` is the format's name, such as "BF16"."""

    name: str
    dtype: str
    shape: tuple[int, ...]  # outermost first

    @property
    def num_bytes(self) -> int:
        count = ITEM_BYTES[self.dtype]
        for size in self.shape:
            count *= size
        return count


class SafetensorsWriter:
    """One file; a context manager. The file appears when the block ends without an exception.

    Raises `OSError` as the disk does; what was written is removed then, as after any exception.
    """

    def __init__(
        self, path: Path, tensors: Sequence[TensorSpec], metadata: Mapping[str, str] | None = None
    ) -> None:
        self._path = path
        self._partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
        ordered = sorted(tensors, key=lambda spec: (-ITEM_BYTES[spec.dtype], spec.name))
        header = _header(ordered, metadata)
        self._places: dict[str, tuple[int, int]] = {}  # not yet written: offset and bytes
        self._end = len(header)
        for spec in ordered:
            self._places[spec.name] = (self._end, spec.num_bytes)
            self._end += spec.num_bytes
        assert len(self._places) == len(ordered), "a tensor stands there twice"
        self._file = self._partial.open("wb")
        self._file.write(header)

    @property
    def is_complete(self) -> bool:
        return not self._places

    def write(self, name: str, data: Buffer) -> None:
        """Write one tensor's bytes; each tensor is written once."""
        offset, num_bytes = self._places.pop(name)
        raw = memoryview(data)
        assert raw.nbytes == num_bytes, (name, raw.nbytes, num_bytes)
        self._file.seek(offset)
        self._file.write(raw)

    def close(self) -> None:
        """Give the file its name. Every tensor must have been written."""
        try:
            assert self.is_complete, sorted(self._places)[:3]
            self._file.flush()
            self._file.truncate(self._end)
            os.fsync(self._file.fileno())
            self._file.close()
            self._partial.replace(self._path)
        except BaseException:
            self.discard()
            raise
        sync(self._path.parent)

    def discard(self) -> None:
        """Remove what was written. Does nothing after `close`."""
        try:
            self._file.close()
        finally:  # closing flushes, which fails again on a full disk
            self._partial.unlink(missing_ok=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        if kind is None:
            self.close()
        else:
            self.discard()


class CheckpointWriter:
    """The weights of a model: one file, or shards and their index; a context manager.

    `shards` maps a file's name to its tensors, as `plan_shards` returns them. A shard is opened at
    its first tensor and closed after its last, so shards may be written in any order.
    """

    def __init__(
        self,
        folder: Path,
        shards: Mapping[str, Sequence[TensorSpec]],
        metadata: Mapping[str, str] | None = None,
    ) -> None:
        self._folder = folder
        self._shards = shards
        self._metadata = metadata
        self._shard_of = {spec.name: file for file, specs in shards.items() for spec in specs}
        assert len(self._shard_of) == sum(len(specs) for specs in shards.values()), "named twice"
        self._open: dict[str, SafetensorsWriter] = {}
        self._closed: set[str] = set()

    def write(self, name: str, data: Buffer) -> None:
        """Write one tensor's bytes; each tensor is written once."""
        file = self._shard_of[name]
        assert file not in self._closed, name
        if file not in self._open:
            self._open[file] = self._writer(file)
        writer = self._open[file]
        writer.write(name, data)
        if writer.is_complete:
            self._close(file)

    def close(self) -> None:
        """Finish the files and write the index, if there are several."""
        try:
            for file in self._shards.keys() - self._closed:
                if file not in self._open:  # a file without tensors
                    self._open[file] = self._writer(file)
                self._close(file)
        except BaseException:
            self.discard()
            raise
        if len(self._shards) > 1:
            write_file(self._folder / INDEX_NAME, index_json(self._shards))

    def discard(self) -> None:
        """Remove what isn't finished. Shards that are whole stay."""
        while self._open:
            self._open.popitem()[1].discard()

    def _writer(self, file: str) -> SafetensorsWriter:
        return SafetensorsWriter(self._folder / file, self._shards[file], self._metadata)

    def _close(self, file: str) -> None:
        self._open.pop(file).close()
        self._closed.add(file)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        if kind is None:
            self.close()
        else:
            self.discard()


def plan_shards(
    tensors: Sequence[TensorSpec], shard_size_bytes: int, stem: str = "model"
) -> dict[str, list[TensorSpec]]:
    """Return each file's tensors: in the order given, as many to a file as fit.

    A tensor that is larger than a shard gets one for itself. One file is `model.safetensors`,
    several are `model-00001-of-00002.safetensors` and so on.
    """
    groups: list[list[TensorSpec]] = [[]]
    room = shard_size_bytes
    for spec in tensors:
        if groups[-1] and spec.num_bytes > room:
            groups.append([])
            room = shard_size_bytes
        groups[-1].append(spec)
        room -= spec.num_bytes
    if len(groups) == 1:
        return {f"{stem}.safetensors": groups[0]}
    return {
        f"{stem}-{number:05}-of-{len(groups):05}.safetensors": group
        for number, group in enumerate(groups, start=1)
    }


def index_json(shards: Mapping[str, Sequence[TensorSpec]]) -> bytes:
    """Return the content of `model.safetensors.index.json`."""
    weight_map = {spec.name: file for file, specs in shards.items() for spec in specs}
    total_size = sum(spec.num_bytes for specs in shards.values() for spec in specs)
    index = {"metadata": {"total_size": total_size}, "weight_map": dict(sorted(weight_map.items()))}
    return msgspec.json.format(msgspec.json.encode(index), indent=2) + b"\n"


def write_file(path: Path, content: bytes) -> None:
    """Write a small file so that it is there whole or not at all. Raises `OSError`."""
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        with partial.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
    sync(path.parent)


def sync(path: Path) -> None:
    """Make a file's content, or the renames in a folder, survive a loss of power."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _header(tensors: Sequence[TensorSpec], metadata: Mapping[str, str] | None) -> bytes:
    """Return the header with its length before it, padded so that the data starts aligned."""
    entries: dict[str, object] = {}
    if metadata:
        entries[METADATA_NAME] = dict(sorted(metadata.items()))
    end = 0
    for spec in tensors:
        assert spec.name != METADATA_NAME, "a reserved name"
        begin, end = end, end + spec.num_bytes
        entries[spec.name] = {
            "dtype": spec.dtype,
            "shape": spec.shape,
            "data_offsets": (begin, end),
        }
    text = msgspec.json.encode(entries)
    text += b" " * (-len(text) % _ALIGNMENT)
    return len(text).to_bytes(8, "little") + text
