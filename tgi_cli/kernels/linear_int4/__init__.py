"""Matrix product with a weight of four-bit codes on a GPU: AWQ's, GPTQ's, any uint8 `Codes`.

    y = x @ (codes * scales + offsets).T + bias

x: [T, K] fp16 or bf16, rows may be apart; codes: [N, K] below 16, scales and offsets: one for each
group of a row's codes, of a multiple of 16; bias: [N] fp32; y: [T, N] in a type of choice; sums are
fp32. A row's bits don't depend on the other rows (`linear_tiles`). Formats differ on disk only:
their readers make `Codes` of all of them, which `pack` lays out once for the kernel.
On the CPU `kernels/linear` multiplies.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from tgi_cli.kernels import devices

from .packing import PackedInt4, why_not
from .packing import pack as _pack

if TYPE_CHECKING:
    from torch import Tensor

    from tgi_cli.kernels.linear import Codes

__all__ = ["PackedInt4", "linear_int4", "pack", "why_not"]


def pack(weight: Codes, bias: Tensor | None = None, *, device: torch.device | str) -> PackedInt4:
    """Return `weight` [N, K] in the kernel's layout on `device`; the caller drops the original."""
    return _pack(weight, bias, device)


def linear_int4(x: Tensor, packed: PackedInt4, out_dtype: torch.dtype | None = None) -> Tensor:
    """Return `x` [T, K] times the packed weight: [T, N], in `out_dtype` or x's own type."""
    from . import kernel, tuned

    assert x.shape[1] == packed.num_in, (x.shape, packed.num_in)
    if packed.input_order is not None:
        x = x.index_select(1, packed.input_order)
    y = torch.empty(x.shape[0], packed.num_out, dtype=out_dtype or x.dtype, device=x.device)
    if x.shape[0]:
        tiling = tuned.tiling(devices.target(), packed.depth)
        kernel.linear_int4(x, packed, out=y, tiling=tiling)
    return y
