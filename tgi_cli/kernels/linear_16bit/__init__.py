"""Matrix product with a 16-bit weight on a GPU.

    y = x @ weight.T + bias

x: [T, K] fp16 or bf16, rows may be apart; weight: [N, K] of x's type; bias: [N] fp32; y: [T, N] in
a type of choice; sums are fp32. A row's bits don't depend on the other rows (`linear_tiles`).
On the CPU `kernels/linear` multiplies.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from tgi_cli.kernels import devices
from tgi_cli.kernels.linear_tiles.packing import in_blocks, num_bytes, on_device
from tgi_cli.kernels.linear_tiles.tiling import Tiling

from .tuned import TUNED


@dataclass(frozen=True, slots=True)
class Packed16Bit:
    """A weight on its GPU."""

    weight: Tensor  # [N, K], zeros up to whole blocks
    bias: Tensor | None
    num_in: int
    tiling: Tiling

    @property
    def num_out(self) -> int:
        return self.weight.shape[0]

    @property
    def num_bytes(self) -> int:
        return num_bytes(self.weight, self.bias)


def pack(
    weight: Tensor, bias: Tensor | None = None, *, device: torch.device | str, dtype: torch.dtype
) -> Packed16Bit:
    """Return `weight` [N, K] in `dtype` on `device`.

    A weight that is there already, and whose K is whole blocks, is shared, not copied.
    """
    assert dtype in (torch.float16, torch.bfloat16), dtype
    tiling = TUNED[devices.target()]
    packed = in_blocks(weight.to(device, dtype), tiling.depth)
    return Packed16Bit(packed, on_device(bias, device), weight.shape[1], tiling)


def linear_16bit(x: Tensor, packed: Packed16Bit, out_dtype: torch.dtype | None = None) -> Tensor:
    """Return `x` [T, K] times the packed weight: [T, N], in `out_dtype` or x's own type."""
    from . import kernel

    assert x.shape[1] == packed.num_in, (x.shape, packed.num_in)
    y = torch.empty(x.shape[0], packed.num_out, dtype=out_dtype or x.dtype, device=x.device)
    if x.shape[0]:
        kernel.linear_16bit(x, packed.weight, packed.bias, out=y, tiling=packed.tiling)
    return y
