"""Large tensors on pages of their own: zeros that take memory when first touched."""

from __future__ import annotations

import contextlib
import math
import mmap
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from torch import Tensor

_HUGE = 1 << 21


def zeros(shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    """Return zeros on large pages where the system has them. Raises `MemoryError`.

    What is read in one sweep, as weights are, then costs no search through page tables; and the
    first touch of a cache costs a 512th of the faults, which in a virtual machine are dear.
    """
    num_elements = math.prod(shape)
    num_bytes = num_elements * dtype.itemsize
    if num_bytes < _HUGE or not hasattr(mmap, "MADV_HUGEPAGE"):
        return torch.zeros(shape, dtype=dtype)
    try:
        pages = mmap.mmap(-1, num_bytes, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    except OSError as exc:
        raise MemoryError(f"the system grants no {num_bytes} bytes") from exc
    with contextlib.suppress(OSError):  # a system without large pages
        pages.madvise(mmap.MADV_HUGEPAGE)
    return torch.frombuffer(pages, dtype=dtype, count=num_elements).view(shape)
