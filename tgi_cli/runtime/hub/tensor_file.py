"""What both file formats are: a directory of tensors over a read-only map of the file."""

from __future__ import annotations

import mmap
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from tgi_cli.errors import CorruptModelError, ModelNotFoundError


@dataclass(frozen=True, slots=True)
class TensorInfo:
    """Where a tensor lies. `dtype` is the format's own name: "BF16", "Q4_1" and the like."""

    name: str
    dtype: str
    shape: tuple[int, ...]  # outermost first
    offset: int  # bytes from the start of the file
    num_bytes: int

    @property
    def num_elements(self) -> int:
        count = 1
        for size in self.shape:
            count *= size
        return count


class TensorFile:
    """A checked directory and the bytes behind it. Nothing is read before it is asked for."""

    path: Path
    tensors: Mapping[str, TensorInfo]

    def __init__(self, path: Path) -> None:
        self.path = path
        self._map = map_file(path)
        self._data = memoryview(self._map)

    def read(self, name: str) -> memoryview:
        """Return a tensor's bytes: a view of the map, without a copy."""
        info = self.tensors[name]
        return self._data[info.offset : info.offset + info.num_bytes]

    def release(self, name: str) -> None:
        """Give back the memory into which the tensor's pages were read; they can be read again.

        Otherwise loading a model would hold the file beside the weights made of it.
        """
        info = self.tensors[name]
        start = -(-info.offset // mmap.PAGESIZE) * mmap.PAGESIZE
        length = (info.offset + info.num_bytes) // mmap.PAGESIZE * mmap.PAGESIZE - start
        if length > 0 and hasattr(mmap, "MADV_DONTNEED"):
            self._map.madvise(mmap.MADV_DONTNEED, start, length)


def map_file(path: Path) -> mmap.mmap:
    """Map a file read-only.

    Raises:
        ModelNotFoundError: it isn't there or may not be read.
        CorruptModelError: it is empty.
    """
    try:
        with path.open("rb") as file:
            size = file.seek(0, 2)
            if size == 0:
                raise corrupt(path, "the file is empty")
            return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    except PermissionError as exc:
        raise ModelNotFoundError(
            f"{path}: permission denied.", hint="Give this user read access to the model's files."
        ) from exc
    except (FileNotFoundError, IsADirectoryError) as exc:
        raise ModelNotFoundError(f"{path}: no such file.") from exc


def corrupt(path: Path, reason: str, tensor: str | None = None) -> CorruptModelError:
    """Return the error for a file that contradicts itself."""
    place = f"{path.name}: tensor {tensor!r}" if tensor is not None else path.name
    return CorruptModelError(f"{place}: {reason}.", hint="Download the file again.")


def check_layout(
    path: Path, tensors: Mapping[str, TensorInfo], data_start: int, data_end: int
) -> None:
    """Raise `CorruptModelError` unless tensors lie inside the data and don't overlap."""
    end = data_start
    for info in sorted(tensors.values(), key=lambda info: (info.offset, info.num_bytes)):
        if info.offset < data_start or info.offset + info.num_bytes > data_end:
            raise corrupt(
                path,
                f"its bytes {info.offset}..{info.offset + info.num_bytes} aren't inside the file's "
                f"data {data_start}..{data_end}; the file may be truncated",
                info.name,
            )
        if info.num_bytes and info.offset < end:
            raise corrupt(path, f"overlaps the tensor before it, which ends at {end}", info.name)
        end = max(end, info.offset + info.num_bytes)
