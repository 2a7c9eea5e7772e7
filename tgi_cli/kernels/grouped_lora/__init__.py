"""Low-rank adapters on a GPU, several in one batch, added to a product that is already there.

    y[t, columns of s] += (x[t] @ a[adapters[t], s].T) @ b[adapters[t], s].T

x: [T, K] fp16 or bf16; adapters: [T] int32, below 0 for a row without one; y: [T, N] of x's type or
fp32; a: [r, K], b: [N_s, r] of x's type, with the adapter's scale in b. A packed projection (q, k
and v) has several outputs s, each with a pair of its own. The inner product is summed in fp32 and
rounded to x's type, as the reference models round it.

Rows are sorted by adapter into tiles of 16 (`expert_routing`), and K is cut by its length alone, so
a row's bits don't depend on the other rows or on their adapters. Nothing waits for the device. No
model uses it yet. Hu et al., LoRA, arXiv:2106.09685; Chen et al., Punica, arXiv:2310.18547.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from tgi_cli.kernels.expert_routing import sort_by_expert

from .packing import PackedLora, pack

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["PackedLora", "add_lora", "pack"]

_ROWS = 16  # of a tile, of few rows and of many: one matrix instruction on every GPU


def add_lora(x: Tensor, packed: PackedLora, adapters: Tensor, y: Tensor) -> None:
    """Add to `y` [T, N] what each row's adapter makes of `x` [T, K]."""
    if not len(x):
        return
    from . import kernel

    tiles = sort_by_expert(adapters[:, None], packed.num_adapters, _ROWS)
    kernel.expand(kernel.shrink(x, packed, tiles), packed, tiles, y)
