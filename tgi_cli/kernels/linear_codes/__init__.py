"""Matrix product with a weight of 8-bit codes, or of 4-bit ones with a table, on a GPU.

    y = x @ weight.T + bias        weight = values * scales, a scale for each row or group of it

x: [T, K] fp16 or bf16; weight: `Codes` [N, K]; bias: [N] fp32; y: [T, N] in a type of choice; sums
are fp32. A row's bits don't depend on the other rows (`linear_tiles`). Three kinds of codes:

- int8 (EETQ's, bitsandbytes', GPTQ's with 8 bits): exact in x's type. bitsandbytes' way of taking
  outliers apart isn't done: activations stay 16-bit, so there are none to save.
- fp8 (e4m3): on Hopper and later the activations are quantised too, each row by its largest
  (`quantize_fp8`), for tensor cores that multiply fp8; elsewhere codes are widened, exactly.
- a table of 16 (bitsandbytes' nf4 and fp4), whose numbers are rounded to x's type.

Four bits with a scale and an offset are `linear_int4`'s. On the CPU `kernels/linear` multiplies.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from tgi_cli.kernels import devices
from tgi_cli.kernels.linear_tiles.packing import on_device
from tgi_cli.kernels.quantize_fp8 import quantize_fp8

from .packing import (
    MIN_WIDTH,
    PARTS,
    Kind,
    PackedCodes,
    scales_of_groups,
    width_for,
    words_of,
)
from .tuned import tiling_for

if TYPE_CHECKING:
    from tgi_cli.kernels.linear import Codes

_FP8_WIDTH = 32  # of a group at least: tensor cores take no fewer fp8 numbers

__all__ = ["PackedCodes", "linear_codes", "pack", "why_not"]


def why_not(weight: Codes) -> str | None:
    """Say why the kernel has no such grid, or None if it has."""
    if weight.codes.dtype == torch.uint8 and weight.table is None:
        return "its codes have no table"
    if weight.offsets is not None:
        return "its groups have offsets"
    group_size = weight.group_size
    if weight.scales.shape[1] > 1 and width_for(_kind_of(weight), group_size) < MIN_WIDTH:
        return f"groups of {group_size} are no multiple of {MIN_WIDTH}"
    return None


def pack(
    weight: Codes,
    bias: Tensor | None = None,
    *,
    device: torch.device | str,
    dtype: torch.dtype,
) -> PackedCodes:
    """Return `weight` [N, K] on `device`, for x of `dtype`; `why_not(weight)` must be None."""
    assert why_not(weight) is None, why_not(weight)
    assert dtype in (torch.float16, torch.bfloat16), dtype
    kind = _kind_of(weight)
    is_by_row = weight.scales.shape[1] == 1
    group_size = 0 if is_by_row else weight.group_size
    depth = PARTS[kind] * width_for(kind, group_size)
    tiling = tiling_for(devices.target(), kind, is_by_row=is_by_row, depth=depth)
    return PackedCodes(
        kind=kind,
        words=words_of(weight.codes, kind, depth).to(device),
        num_in=weight.codes.shape[1],
        tiling=tiling,
        group_size=group_size,
        scales=on_device(weight.scales[:, 0], device) if is_by_row else None,
        group_scales=None if is_by_row else scales_of_groups(weight, depth).to(device),
        table=None if weight.table is None else weight.table.to(device, dtype),
        bias=on_device(bias, device),
        input_order=None if weight.input_order is None else weight.input_order.to(device),
    )


def linear_codes(x: Tensor, packed: PackedCodes, out_dtype: torch.dtype | None = None) -> Tensor:
    """Return `x` [T, K] times the packed weight: [T, N], in `out_dtype` or x's own type."""
    from . import kernel

    y = torch.empty(x.shape[0], packed.num_out, dtype=out_dtype or x.dtype, device=x.device)
    if not x.shape[0]:
        return y
    if packed.input_order is not None:
        x = x.index_select(1, packed.input_order)
    row_scales = None
    if packed.kind == "fp8":
        x, row_scales = quantize_fp8(x)
    kernel.linear_codes(x, packed, out=y, row_scales=row_scales)
    return y


def _kind_of(weight: Codes) -> Kind:
    if weight.table is not None:
        return "table4"
    if weight.codes.dtype == torch.int8:
        return "int8"
    is_wide = weight.scales.shape[1] == 1 or weight.group_size % _FP8_WIDTH == 0
    return "fp8" if devices.target() == "sm_90" and is_wide else "e4m3"
