"""Gated activations in Triton: `gated_activation/__init__.py` has the formulas.

x: [T, 2 * I] fp32, fp16 or bf16, rows may be apart; y: [T, I], contiguous. A program computes 2048
columns of a row. Memory bound: moves 3 * T * I * itemsize bytes.
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
def _gated_activation_kernel(
    x_ptr, y_ptr, x_stride, width, KIND: tl.constexpr, BLOCK: tl.constexpr
):
    cols = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    mask = cols < width
    row = tl.program_id(0).to(tl.int64)  # T * 2 * I can pass 2**31
    gate = tl.load(x_ptr + row * x_stride + cols, mask=mask, other=0.0).to(tl.float32)
    value = tl.load(x_ptr + row * x_stride + width + cols, mask=mask, other=0.0).to(tl.float32)
    if KIND == "silu":
        gate = gate * tl.sigmoid(gate)
    elif KIND == "gelu":
        gate = 0.5 * gate * (1.0 + tl.erf(gate * 0.7071067811865476))
    else:
        tl.static_assert(KIND == "gelu_tanh")
        # (1 + tanh(u)) / 2 is sigmoid(2 u), which needs no tanh and no device library.
        gate = gate * tl.sigmoid(1.5957691216057308 * (gate + 0.044715 * gate * gate * gate))
    tl.store(y_ptr + row * width + cols, (gate * value).to(y_ptr.dtype.element_ty), mask=mask)


def gated_activation(x: Tensor, kind: str) -> Tensor:
    """Return [T, I] for `x` [T, 2 * I], whose first half gates the second."""
    num_rows, width = x.shape[0], x.shape[1] // 2
    assert x.stride(1) == 1, x.stride()
    y = torch.empty(num_rows, width, dtype=x.dtype, device=x.device)
    if num_rows:
        _gated_activation_kernel[(num_rows, triton.cdiv(width, _BLOCK))](
            x, y, x.stride(0), width, KIND=kind, BLOCK=_BLOCK, num_warps=4
        )
    return y
