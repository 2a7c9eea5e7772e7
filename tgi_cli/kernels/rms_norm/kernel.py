"""RMS normalisation in Triton, alone or after a residual addition.

    h = x + residual                              (written to residual, in its type)
    y = h / sqrt(mean(h_i^2) + eps) * weight      (h as the residual holds it)

x, y: [T, H] fp32, fp16 or bf16; residual: [T, H], of any of these types; weight: [H] fp32. Rows of
x and y may be apart (head norms inside a qkv row). One program for each row, whose sum is one tree
over a fixed block, so a row's bits don't depend on its neighbours. Memory bound: moves
T * H * (x + 2 * residual + y) bytes.

`norm_heads_` does the same for the heads of queries and keys, up to 16 of a token in a program.

Zhang and Sennrich, Root Mean Square Layer Normalization, arXiv:1910.07467.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import triton
import triton.language as tl

if TYPE_CHECKING:
    from torch import Tensor


@triton.jit
def _rms_norm_kernel(
    x_ptr,
    residual_ptr,
    weight_ptr,
    y_ptr,
    x_stride,
    y_stride,
    hidden,
    eps,
    HAS_RESIDUAL: tl.constexpr,
    BLOCK: tl.constexpr,
):
    cols = tl.arange(0, BLOCK)  # BLOCK is the next power of two from hidden up
    mask = cols < hidden
    row = tl.program_id(0).to(tl.int64)  # T * H can pass 2**31

    h = tl.load(x_ptr + row * x_stride + cols, mask=mask, other=0.0).to(tl.float32)
    if HAS_RESIDUAL:
        places = residual_ptr + row * hidden + cols
        rounded = (h + tl.load(places, mask=mask, other=0.0).to(tl.float32)).to(
            residual_ptr.dtype.element_ty
        )
        tl.store(places, rounded, mask=mask)
        h = rounded.to(tl.float32)
    normed = h * tl.rsqrt(tl.sum(h * h) / hidden + eps)  # masked lanes add zero
    weight = tl.load(weight_ptr + cols, mask=mask, other=0.0)
    y = (normed * weight).to(y_ptr.dtype.element_ty)
    tl.store(y_ptr + row * y_stride + cols, y, mask=mask)


def rms_norm(
    x: Tensor, weight: Tensor, eps: float, *, residual: Tensor | None = None, out: Tensor
) -> Tensor:
    """Normalise rows of `x` [T, H] into `out` [T, H] and return it; add to `residual` first."""
    num_rows, hidden = x.shape
    assert x.stride(1) == out.stride(1) == 1, (x.stride(), out.stride())
    assert residual is None or residual.is_contiguous()
    block = triton.next_power_of_2(hidden)
    _rms_norm_kernel[(num_rows,)](
        x,
        x if residual is None else residual,
        weight,
        out,
        x.stride(0),
        out.stride(0),
        hidden,
        eps,
        HAS_RESIDUAL=residual is not None,
        BLOCK=block,
        num_warps=min(max(block // 512, 1), 8),
    )
    return out


_HEADS = 16  # of a program


@triton.jit
def _norm_heads_kernel(
    x_ptr,
    q_weight_ptr,
    k_weight_ptr,
    x_token_stride,
    x_head_stride,
    num_heads,
    num_q_heads,
    eps,
    HEAD_DIM: tl.constexpr,
    BLOCK: tl.constexpr,
    HEADS: tl.constexpr,
):
    token = tl.program_id(0).to(tl.int64)  # T * H * D can pass 2**31
    heads = tl.program_id(1) * HEADS + tl.arange(0, HEADS)
    cols = tl.arange(0, BLOCK)  # BLOCK is the next power of two from HEAD_DIM up
    is_inside = cols < HEAD_DIM
    q_weight = tl.load(q_weight_ptr + cols, mask=is_inside, other=0.0)
    k_weight = tl.load(k_weight_ptr + cols, mask=is_inside, other=0.0)

    places = x_ptr + token * x_token_stride + heads[:, None] * x_head_stride + cols[None, :]
    mask = (heads < num_heads)[:, None] & is_inside[None, :]
    h = tl.load(places, mask=mask, other=0.0).to(tl.float32)
    scale = tl.rsqrt(tl.sum(h * h, axis=1) / HEAD_DIM + eps)  # masked lanes add zero
    weight = tl.where((heads < num_q_heads)[:, None], q_weight[None, :], k_weight[None, :])
    tl.store(places, (h * scale[:, None] * weight).to(x_ptr.dtype.element_ty), mask=mask)


def norm_heads_(
    x: Tensor, q_weight: Tensor, k_weight: Tensor, num_q_heads: int, eps: float
) -> None:
    """Normalise every head of `x` [T, H, D] in place: queries first, then keys."""
    num_tokens, num_heads, head_dim = x.shape
    assert x.stride(2) == 1, x.stride()
    if not num_tokens:
        return
    block = triton.next_power_of_2(head_dim)
    _norm_heads_kernel[(num_tokens, triton.cdiv(num_heads, _HEADS))](
        x,
        q_weight,
        k_weight,
        x.stride(0),
        x.stride(1),
        num_heads,
        num_q_heads,
        eps,
        HEAD_DIM=head_dim,
        BLOCK=block,
        HEADS=_HEADS,
        num_warps=1 if block <= 128 else 2,
    )
