"""How a step's host arrays come to the device that computes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

import torch

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor


class Uploader(Protocol):
    """Copies in the order of the current stream."""

    def upload(self, name: str, array: NDArray[Any]) -> Tensor:
        """Return `array` on the device, valid until the next upload of that name.

        The same name in the same shape has the same address each time, as captured graphs need.
        """
        ...


class PlainUploader:
    """Copies at once, each time into the same tensor: for CPU tensors, tests and benchmarks."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._tensors: dict[tuple[str, tuple[int, ...]], Tensor] = {}

    def upload(self, name: str, array: NDArray[Any]) -> Tensor:
        source = torch.from_numpy(array)
        target = self._tensors.get((name, array.shape))
        if target is None:
            target = torch.empty(array.shape, dtype=source.dtype, device=self._device)
            self._tensors[name, array.shape] = target
        return target.copy_(source)
