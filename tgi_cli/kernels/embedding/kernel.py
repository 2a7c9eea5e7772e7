"""Rows of a plain weight in Triton, widened.

    y[t] = weight[ids[t]], or 0 for an id that the weight has no row for

ids: [T] int64; weight: [V, H] fp32, fp16 or bf16, rows contiguous; y: [T, H] fp32. A GPU can't
raise in the midst of a step, so an id outside reads nothing and gives zeros: the host has checked
its ids before it sends them (`Engine.add`), and the sampler draws none outside. A program reads
2048 columns of a row. Memory bound: moves T * H * (itemsize + 4) bytes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import triton
import triton.language as tl

if TYPE_CHECKING:
    from torch import Tensor

_BLOCK = 2048


@triton.jit
def _embed_kernel(ids_ptr, weight_ptr, y_ptr, weight_stride, num_rows, hidden, BLOCK: tl.constexpr):
    cols = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    mask = cols < hidden
    token = tl.program_id(0).to(tl.int64)
    row = tl.load(ids_ptr + token)  # int64, so that V * H may pass 2**31
    is_there = (row >= 0) & (row < num_rows)
    x = tl.load(weight_ptr + row * weight_stride + cols, mask=mask & is_there, other=0.0)
    tl.store(y_ptr + token * hidden + cols, x.to(tl.float32), mask=mask)


def embed(ids: Tensor, weight: Tensor) -> Tensor:
    """Return rows `ids` [T] of `weight` [V, H] as [T, H] fp32."""
    num_rows, hidden = weight.shape
    assert ids.dtype == torch.int64, ids.dtype
    assert ids.is_contiguous(), ids.stride()
    assert weight.stride(1) == 1, weight.stride()
    y = torch.empty(len(ids), hidden, dtype=torch.float32, device=weight.device)
    if len(ids):
        _embed_kernel[(len(ids), triton.cdiv(hidden, _BLOCK))](
            ids, weight, y, weight.stride(0), num_rows, hidden, BLOCK=_BLOCK, num_warps=4
        )
    return y
