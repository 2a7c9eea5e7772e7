"""A matrix of unsigned codes with scales and zero points for groups: onto the kernels' grid.

    w[n, k] = (q[n, k] - z[n, g]) * s[n, g]        g: the group of k

q: [N, K] uint8; z: [N, G], whole numbers; s: [N, G] fp16, bf16 or fp32. The kernels take it as
q * s + (-z * s), whose offset is exact in fp32 with scales of 16 bits, since z has at most 9 bits
and s 11. With fp32 scales, which no usual writer stores, it may be rounded.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from tgi_cli.kernels.linear import Codes
from tgi_cli.runtime.layers.quantization.errors import BadTensorError

_INT8_ZERO = 128


@dataclass(frozen=True, slots=True)
class GroupedCodes:
    """What a format's tensors say, before anything is made of it."""

    codes: Tensor  # [N, K] uint8
    zeros: Tensor  # [N, G] int32
    scales: Tensor  # [N, G] as stored
    bits: int
    groups: Tensor | None = None  # [K] int64, the group of each input feature; None: in order

    @property
    def group_size(self) -> int:
        return self.codes.shape[1] // self.scales.shape[1]

    def dequantize(self) -> Tensor:
        """Return the weights [N, K] in fp32, as the formula has them."""
        groups = self.groups
        if groups is None:
            groups = torch.arange(self.codes.shape[1]) // self.group_size
        steps = self.codes.int() - self.zeros[:, groups]
        return (steps.double() * self.scales.double()[:, groups]).float()


def matrix_of(stored: GroupedCodes) -> Tensor | Codes:
    """Return what the kernels multiply, with the numbers of `stored.dequantize`.

    A plain fp32 matrix where the kernels have no such grid: groups of unequal size.
    """
    codes, order = stored.codes, None
    if stored.groups is not None:
        sizes = torch.bincount(stored.groups, minlength=stored.scales.shape[1])
        if not bool((sizes == stored.group_size).all()):
            return stored.dequantize()
        order = torch.argsort(stored.groups, stable=True)
        if torch.equal(order, torch.arange(len(order))):
            order = None
        else:
            codes = codes[:, order]
    if stored.bits == 8:
        return _in_int8(stored, codes, order)
    scales, offsets = _scales_and_offsets(stored)
    return Codes(codes.contiguous(), scales, offsets, stored.group_size, order)


def _in_int8(stored: GroupedCodes, codes: Tensor, order: Tensor | None) -> Codes:
    in_groups = codes.unflatten(1, (-1, stored.group_size)).short()
    steps = (in_groups - stored.zeros.short()[..., None]).flatten(1)
    offsets = None
    if int(steps.min()) >= -_INT8_ZERO and int(steps.max()) < _INT8_ZERO:
        scales = _narrow(stored.scales)
    else:
        steps = codes.short() - _INT8_ZERO
        scales, offsets = _scales_and_offsets(stored, middle=_INT8_ZERO)
    return Codes(steps.to(torch.int8), scales, offsets, stored.group_size, order)


def _scales_and_offsets(stored: GroupedCodes, middle: int = 0) -> tuple[Tensor, Tensor]:
    """Return both, of codes counted from `middle`, in fp16 if that is exact, else in fp32."""
    scales = stored.scales.float()
    offsets = (middle - stored.zeros) * scales
    narrow_scales, narrow_offsets = _narrow(stored.scales), _narrow(offsets)
    if narrow_scales.dtype == narrow_offsets.dtype == torch.float16:
        return narrow_scales, narrow_offsets
    return scales, offsets


def _narrow(values: Tensor) -> Tensor:
    """Return `values` in fp16 if it holds them all, else in fp32."""
    narrow = values.half()
    return narrow if torch.equal(narrow.float(), values.float()) else values.float()


def check_scales(suffix: str, scales: Tensor) -> Tensor:
    """Return `scales`. Raises `BadTensorError` if one isn't a number."""
    if not bool(scales.isfinite().all()):
        raise BadTensorError(suffix, "a scale is infinite or not a number")
    return scales


def groups_of(suffix: str, group_of: Tensor | None, num_groups: int) -> Tensor | None:
    """Return the group of each input feature [K], or None if they are in order.

    Raises:
        BadTensorError: a group that isn't there.
    """
    if group_of is None:
        return None
    if int(group_of.min()) < 0 or int(group_of.max()) >= num_groups:
        raise BadTensorError(suffix, f"a group isn't one of 0 to {num_groups - 1}")
    groups = group_of.long()
    in_order = torch.arange(len(groups)) // (len(groups) // num_groups)
    return None if torch.equal(groups, in_order) else groups
