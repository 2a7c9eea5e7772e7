"""What the products share on a GPU: which tile a program has, and how it ends.

    y[m, n] = (slice 0 + slice 1 + ...) * row_scales[m] * scales[n] + bias[n]

row_scales: [T] fp32; scales, bias: [N] fp32; each may be missing. Partial sums: [slices, T, N]
fp32, of the T rows that there are. `tiling.py` says why the bits don't depend on T.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import triton
import triton.language as tl

if TYPE_CHECKING:
    from torch import Tensor

    from .tiling import Cut
_COLUMNS_TO_ADD = 512


@triton.jit
def place_of_tile(num_rows, num_out, ROWS: tl.constexpr, COLUMNS: tl.constexpr):
    """Return which tile of rows and of columns this program has: neighbours share operands."""
    GROUP: tl.constexpr = 8
    across = tl.cdiv(num_out, COLUMNS)
    down = tl.cdiv(num_rows, ROWS)
    program = tl.program_id(0)
    first = program // (GROUP * across) * GROUP
    height = tl.minimum(down - first, GROUP)
    within = program % (GROUP * across)
    return first + within % height, within // height


@triton.jit
def store_tile(
    total,
    row_scales_ptr,
    scales_ptr,
    bias_ptr,
    y_ptr,
    y_stride,
    rows,
    columns,
    num_rows,
    num_out,
    IS_PARTIAL: tl.constexpr,
    HAS_ROW_SCALES: tl.constexpr,
    HAS_SCALES: tl.constexpr,
    HAS_BIAS: tl.constexpr,
):
    """Scale sums [rows, columns] and write them; as they are if they are partial."""
    is_row, is_column = rows < num_rows, columns < num_out
    if not IS_PARTIAL:
        if HAS_ROW_SCALES:
            total *= tl.load(row_scales_ptr + rows, mask=is_row, other=0.0)[:, None]
        if HAS_SCALES:
            total *= tl.load(scales_ptr + columns, mask=is_column, other=0.0)[None, :]
        if HAS_BIAS:
            total += tl.load(bias_ptr + columns, mask=is_column, other=0.0)[None, :]
    places = y_ptr + rows[:, None].to(tl.int64) * y_stride + columns[None, :]
    tl.store(places, total.to(y_ptr.dtype.element_ty), mask=is_row[:, None] & is_column[None, :])


@triton.jit(do_not_specialize=["num_rows"])  # one program for every batch
def _add_slices_kernel(
    partial_ptr,
    row_scales_ptr,
    scales_ptr,
    bias_ptr,
    y_ptr,
    y_stride,
    num_rows,
    num_out,
    NUM_SLICES: tl.constexpr,
    HAS_ROW_SCALES: tl.constexpr,
    HAS_SCALES: tl.constexpr,
    HAS_BIAS: tl.constexpr,
    COLUMNS: tl.constexpr,
):
    # One program for each row and COLUMNS of it.
    rows = tl.program_id(0) + tl.arange(0, 1)
    columns = tl.program_id(1) * COLUMNS + tl.arange(0, COLUMNS)
    places = rows[:, None].to(tl.int64) * num_out + columns[None, :]
    slice_size = num_rows.to(tl.int64) * num_out
    total = tl.zeros((1, COLUMNS), tl.float32)
    for index in tl.static_range(NUM_SLICES):
        total += tl.load(
            partial_ptr + index * slice_size + places, mask=columns[None, :] < num_out, other=0.0
        )
    store_tile(
        total,
        row_scales_ptr,
        scales_ptr,
        bias_ptr,
        y_ptr,
        y_stride,
        rows,
        columns,
        num_rows,
        num_out,
        False,
        HAS_ROW_SCALES,
        HAS_SCALES,
        HAS_BIAS,
    )


def partial_sums(cut: Cut, out: Tensor) -> Tensor:
    """Return what the tiles are written to: `out`, or memory for slices [slices, T, N]."""
    if not cut.is_split:
        return out
    return torch.empty((cut.num_slices, *out.shape), dtype=torch.float32, device=out.device)


def add_slices(
    partial: Tensor,
    out: Tensor,
    *,
    row_scales: Tensor | None = None,
    scales: Tensor | None = None,
    bias: Tensor | None = None,
) -> None:
    """Add `partial` [slices, T, N] in order, scale the sums and write them to `out` [T, N]."""
    num_slices, num_rows, num_out = partial.shape
    _add_slices_kernel[(num_rows, triton.cdiv(num_out, _COLUMNS_TO_ADD))](
        partial,
        row_scales,
        scales,
        bias,
        out,
        out.stride(0),
        num_rows,
        num_out,
        NUM_SLICES=num_slices,
        HAS_ROW_SCALES=row_scales is not None,
        HAS_SCALES=scales is not None,
        HAS_BIAS=bias is not None,
        COLUMNS=_COLUMNS_TO_ADD,
        num_warps=4,
    )
