"""Four-bit codes on their GPU, in the layout of `codes.py`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from tgi_cli.kernels.linear_tiles.packing import num_bytes, on_device

from .codes import MASKS, grids_of, words_of

if TYPE_CHECKING:
    from tgi_cli.kernels.linear import Codes

_COLUMNS = 128  # output features come in whole tiles of any width up to this
_PART = 16  # input features that share a scale and follow one another, at least


@dataclass(frozen=True, slots=True)
class PackedInt4:
    """A weight on its GPU."""

    words: Tensor  # [blocks, N up to whole tiles, 16 or 32] int32
    grids: Tensor  # [groups of whole blocks, 1 or 2, N up to whole tiles] int32
    masks: Tensor  # [2] int32
    bias: Tensor | None  # [N] fp32
    num_out: int
    num_in: int
    group_size: int
    input_order: Tensor | None  # [K] int64: column j multiplies feature input_order[j]

    @property
    def depth(self) -> int:
        """Input features of a block."""
        return 8 * self.words.shape[-1]

    @property
    def num_bytes(self) -> int:
        return num_bytes(self.words, self.grids, self.masks, self.bias, self.input_order)


def why_not(weight: Codes) -> str | None:
    """Say why the kernel has no such grid, or None if it has."""
    if weight.codes.dtype != torch.uint8 or weight.table is not None:
        return "its codes are not four bits with a scale"
    if weight.group_size % _PART and weight.scales.shape[1] > 1:
        return f"groups of {weight.group_size} are no multiple of {_PART}"
    return None


def pack(weight: Codes, bias: Tensor | None, device: torch.device | str) -> PackedInt4:
    """Return `weight` [N, K] in words on `device`; `why_not(weight)` must be None."""
    reason = why_not(weight)
    assert reason is None, reason
    num_out, num_in = weight.codes.shape
    group_size = weight.group_size
    if weight.scales.shape[1] == 1:  # one group, of any size: of whole parts
        group_size = -(-num_in // _PART) * _PART
    num_words = _num_words(num_in, group_size)
    words = words_of(_fill_up(weight.codes.to(device), -2, _COLUMNS), num_words)
    grids = grids_of(
        _fill_up(weight.scales.to(device), -2, _COLUMNS),
        None if weight.offsets is None else _fill_up(weight.offsets.to(device), -2, _COLUMNS),
    )
    num_groups = -(-words.shape[0] * 8 * num_words // group_size)
    order = weight.input_order
    return PackedInt4(
        words=words,
        grids=_fill_up(grids, 0, num_groups),  # those of the last block that aren't there
        masks=torch.tensor(MASKS, dtype=torch.int32, device=device),
        bias=on_device(bias, device),
        num_out=num_out,
        num_in=num_in,
        group_size=group_size,
        input_order=None if order is None else order.to(device),
    )


def _num_words(num_in: int, group_size: int) -> int:
    """Return how many words a block has: 32 unless groups are cut in it or much is filled up."""
    is_cut = group_size % 32 != 0
    return 16 if is_cut or -num_in % 256 >= 128 else 32


def _fill_up(tensor: Tensor, axis: int, multiple: int) -> Tensor:
    """Return `tensor` with zeros after the last of `axis`, so that there is a multiple."""
    missing = -tensor.shape[axis] % multiple
    if not missing:
        return tensor
    shape = list(tensor.shape)
    shape[axis] = missing
    return torch.cat((tensor, tensor.new_zeros(shape)), axis)
