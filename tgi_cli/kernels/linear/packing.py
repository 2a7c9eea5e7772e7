"""Weights in the panels that the native product reads: `linear.h` has the layout.

A panel is 32 output features side by side for each input feature, so that a product reads its
weights once and in order.
"""

from __future__ import annotations

import ctypes
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from tgi_cli.kernels.native import kernel_types
from tgi_cli.kernels.native.pages import zeros

if TYPE_CHECKING:
    from torch import Tensor

PANEL = 32


class Descriptor(ctypes.Structure):
    """`Linear` of linear.h."""

    _fields_ = (
        ("kernel", ctypes.c_int64),
        ("n", ctypes.c_int64),
        ("k", ctypes.c_int64),
        ("group_size", ctypes.c_int64),
        ("scale_size", ctypes.c_int64),
        ("data", ctypes.c_void_p),
        ("scales", ctypes.c_void_p),
        ("offsets", ctypes.c_void_p),
        ("bias", ctypes.c_void_p),
        ("table", ctypes.c_void_p),
    )


@dataclass(frozen=True, slots=True)
class NativeWeight:
    """A packed weight, and the tensors that keep its memory."""

    descriptor: Descriptor
    tensors: tuple[Tensor, ...]

    @property
    def num_bytes(self) -> int:
        return sum(tensor.numel() * tensor.element_size() for tensor in self.tensors)


@dataclass(frozen=True, slots=True)
class Codes:
    """A weight [N, K] on a grid: value * scale + offset, a scale for each group of a row's codes.

    scales, offsets (or None, for zeros): [N, ceil(K / group_size)], both fp16 or both fp32;
    `group_size` is any number from 1 up. Column j multiplies input feature `input_order[j]`, or j
    without one. Codes [N, K] are of four kinds:

    - int8, or float8_e4m3fn without NaNs: the values;
    - uint8 below 16: the values, or, if there is a `table` [16] fp32, places in it.
    """

    codes: Tensor
    scales: Tensor
    offsets: Tensor | None
    group_size: int
    input_order: Tensor | None = None  # [K] int64, a permutation
    table: Tensor | None = None

    @property
    def values(self) -> Tensor:
        """What the codes stand for [N, K], in fp64."""
        return self.codes.double() if self.table is None else self.table.double()[self.codes.int()]

    def dequantize(self) -> Tensor:
        """Return the weights [N, K] in fp32, each rounded once."""
        num_k = self.codes.shape[1]
        scales = self.scales.double().repeat_interleave(self.group_size, 1)[:, :num_k]
        weights = self.values * scales
        if self.offsets is not None:
            weights += self.offsets.double().repeat_interleave(self.group_size, 1)[:, :num_k]
        if self.input_order is not None:
            weights = weights[:, torch.argsort(self.input_order)]
        return weights.float()

    def is_alike(self, other: Codes) -> bool:
        """Whether one grid holds the rows of both: kind, groups and the order of the inputs.

        Offsets may be missing in one of them: zeros then take their place.
        """
        return (
            self.codes.dtype == other.codes.dtype
            and self.group_size == other.group_size
            and _are_same(self.input_order, other.input_order)
            and _are_same(self.table, other.table)
        )


def pack(weight: Tensor | Codes, bias: Tensor | None, *, gated: bool) -> NativeWeight:
    """Copy a weight [N, K] into panels; `gated`: the first N / 2 rows are the others' gates."""
    scales = offsets = table = None
    group_size = scale_size = 0
    if isinstance(weight, Codes):
        kernel, group_size = _kernel_of(weight), weight.group_size
        table = None if weight.table is None else weight.table.float().contiguous()
        scale_size = weight.scales.element_size()
        scales = _in_panels(weight.scales, gated)
        offsets = None if weight.offsets is None else _in_panels(weight.offsets, gated)
        codes = weight.codes
        num_rows, num_k = codes.shape
        if codes.dtype == torch.uint8:
            data = _words(codes, gated)
        else:
            data = _in_panels(codes.view(torch.int8), gated)
    else:
        kernel = kernel_types.PLAIN[weight.dtype]
        num_rows, num_k = weight.shape
        data = _in_panels(weight, gated)
    packed_bias = None if bias is None else _in_panels(bias.float()[:, None], gated)
    descriptor = Descriptor(
        kernel=kernel,
        n=num_rows,
        k=num_k,
        group_size=group_size,
        scale_size=scale_size,
        data=data.data_ptr(),
        scales=_address(scales),
        offsets=_address(offsets),
        bias=_address(packed_bias),
        table=_address(table),
    )
    parts = (data, scales, offsets, packed_bias, table)
    return NativeWeight(descriptor, tuple(part for part in parts if part is not None))


def _kernel_of(weight: Codes) -> int:
    """Return the `Kernel` of tiles.h that multiplies such codes."""
    if weight.table is not None:
        return kernel_types.TABLE4
    return kernel_types.CODES[weight.codes.dtype]


def _are_same(a: Tensor | None, b: Tensor | None) -> bool:
    return a is b if a is None or b is None else torch.equal(a, b)


def _address(tensor: Tensor | None) -> int | None:
    return None if tensor is None else tensor.data_ptr()


def _in_panels(rows: Tensor, gated: bool) -> Tensor:
    """Return [N, K] as [panels, K, 32], zeros after the last row."""
    num_rows, num_k = rows.shape
    if gated:
        halves = _fill_up(rows.view(2, num_rows // 2, num_k), PANEL // 2)
        panels = halves.view(2, -1, 16, num_k).permute(1, 3, 0, 2)
    else:
        panels = _fill_up(rows, PANEL).view(-1, 2, 16, num_k).permute(0, 3, 1, 2)
    out = zeros((panels.shape[0], num_k, 2, 16), rows.dtype)
    out.copy_(panels)
    return out.view(-1, num_k, PANEL)


def _words(codes: Tensor, gated: bool) -> Tensor:
    """Return codes of four bits [N, K] as bytes [panels, ceil(K / 8), 32, 4].

    A word of four bytes holds a row's codes of eight k, the first in its lowest bits.
    """
    pairs = torch.nn.functional.pad(codes, (0, -codes.shape[1] % 8)).unflatten(1, (-1, 2))
    packed = pairs[:, :, 0] | (pairs[:, :, 1] << 4)  # [N, K / 2]
    panels = _in_panels(packed, gated).unflatten(1, (-1, 4))  # [panels, K / 8, 4, 32]
    out = zeros((*panels.shape[:2], PANEL, 4), torch.uint8)
    out.copy_(panels.transpose(2, 3))
    return out


def _fill_up(rows: Tensor, multiple: int) -> Tensor:
    """Return `rows` [..., N, K] with zeros after the last, so that N is a multiple."""
    missing = -rows.shape[-2] % multiple
    return torch.nn.functional.pad(rows, (0, 0, 0, missing)) if missing else rows
