"""A step's host arrays on their way to a GPU: through pinned memory, without waiting.

The host writes an array into pinned memory and queues its copy to a device tensor whose address
stays. There are two halves of pinned memory, which steps take in turn: while the copies out of one
are still queued behind a running step, the host writes to the other.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from tgi_cli.runtime.platforms.gpu import Event, Gpu

if TYPE_CHECKING:
    from numpy.typing import NDArray

_ALIGNMENT = 256  # bytes: what a device's copies and 16-byte loads like
_MIN_PIECE = 1 << 20  # bytes of pinned memory that are asked for at once


class _Half:
    """Pinned memory that is handed out from its start, and again once its copies are done."""

    def __init__(self, gpu: Gpu) -> None:
        self._gpu = gpu
        self._pieces: list[Tensor] = []
        self._piece, self._offset = 0, 0
        self.is_copied: Event = gpu.new_event()

    def reuse(self) -> None:
        """Begin at the start, when the device has read what was here."""
        self.is_copied.synchronize()
        self._piece, self._offset = 0, 0

    def take(self, num_bytes: int) -> Tensor:
        """Return pinned memory [num_bytes] uint8."""
        while self._piece < len(self._pieces):
            piece = self._pieces[self._piece]
            if self._offset + num_bytes <= len(piece):
                taken = piece[self._offset : self._offset + num_bytes]
                self._offset += -(-num_bytes // _ALIGNMENT) * _ALIGNMENT
                return taken
            self._piece, self._offset = self._piece + 1, 0
        size = max(_MIN_PIECE, _power_of_two(num_bytes))
        self._pieces.append(self._gpu.pinned((size,), torch.uint8))
        return self.take(num_bytes)


class Staging:
    """The engine's `Uploader` (platforms/uploads.py). Copies are queued on the current stream."""

    def __init__(self, gpu: Gpu) -> None:
        self._gpu = gpu
        self._halves = [_Half(gpu), _Half(gpu)]
        self._targets: dict[tuple[str, torch.dtype, int], Tensor] = {}
        self._tables: dict[int, _Table] = {}  # by the id of the array

    def next_step(self) -> None:
        """Begin a step's uploads. All that was queued until now belongs to the step before it."""
        self._halves[0].is_copied.record()
        self._halves.reverse()
        self._halves[0].reuse()

    def track(self, table: NDArray[Any], take_changed: Callable[[], Iterable[int]]) -> None:
        """Upload of `table` [R, C], whenever it is asked for, only rows that `take_changed` names.

        It is one and the same array each time, written in place.
        """
        target = torch.zeros(table.shape, dtype=_dtype_of(table), device=self._gpu.device)
        self._tables[id(table)] = _Table(table, take_changed, target)

    def upload(self, name: str, array: NDArray[Any]) -> Tensor:
        """Return `array` on the device, valid until the next upload of that name.

        The same name in the same shape has the same address each time, as captured graphs need.
        """
        table = self._tables.get(id(array))
        if table is not None:
            for row in table.take_changed():
                self._copy(table.target[row], array[row])
            return table.target
        dtype = _dtype_of(array)
        key = (name, dtype, _power_of_two(array.size))
        target = self._targets.get(key)
        if target is None:
            target = torch.empty(key[2], dtype=dtype, device=self._gpu.device)
            self._targets[key] = target
        target = target[: array.size]
        if array.size:
            self._copy(target, array.reshape(-1))
        return target.view(array.shape)

    def _copy(self, target: Tensor, values: NDArray[Any]) -> None:
        room = self._halves[0].take(values.nbytes)
        room.numpy().view(values.dtype)[:] = values
        self._gpu.copy(target, room.view(target.dtype))


class _Table:
    def __init__(
        self, array: NDArray[Any], take_changed: Callable[[], Iterable[int]], target: Tensor
    ) -> None:
        self.array = array  # kept, so that nobody else gets its id
        self.take_changed = take_changed
        self.target = target


def _dtype_of(array: NDArray[Any]) -> torch.dtype:
    return torch.from_numpy(array[:0]).dtype


def _power_of_two(size: int) -> int:
    """Return the next power of two, so that few sizes are ever allocated."""
    return 1 << max(0, size - 1).bit_length()


def fetch(gpu: Gpu, tensor: Tensor) -> Tensor:
    """Return a copy of a device tensor in the host's memory, after waiting for it."""
    target = gpu.pinned(tuple(tensor.shape), tensor.dtype)
    gpu.copy(target, tensor)
    is_there = gpu.new_event()
    is_there.record()
    is_there.synchronize()
    return target
