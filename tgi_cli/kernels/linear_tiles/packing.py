"""A weight as the products on a GPU want it: rows of whole blocks, so that no load needs a mask."""

from __future__ import annotations

import torch
from torch import Tensor


def in_blocks(weight: Tensor, depth: int) -> Tensor:
    """Return `weight` [N, K] with zeros up to a multiple of `depth`, contiguous; uncopied if so."""
    missing = -weight.shape[1] % depth
    if missing:
        weight = torch.nn.functional.pad(weight, (0, missing))
    return weight.contiguous()


def on_device(tensor: Tensor | None, device: torch.device | str) -> Tensor | None:
    """Return a bias or scales in fp32 on `device`."""
    return None if tensor is None else tensor.to(device, torch.float32).contiguous()


def num_bytes(*tensors: Tensor | None) -> int:
    """Return the memory that `tensors` take together."""
    return sum(t.numel() * t.element_size() for t in tensors if t is not None)
