"""The feed-forward block of a mixture of experts on a GPU.

    y[t] = sum over j of weights[t, j] * act(x[t] @ gate.T, x[t] @ up.T) @ down.T

of the experts[t, j] (`expert_routing`), j ascending; `act` is `gated_activation`'s. x, y: [T, H]
fp16 or bf16; gate and up are the halves of one weight [2 * I, H]; down: [H, I]; weights are of x's
type or four-bit codes in groups (`linear_int4`). Products are rounded to x's type up to the down
products, which are summed in fp32.

Pairs of a token and an expert are sorted by expert and cut into tiles; each tile is a product of
its own, as `linear_16bit` and `linear_int4` do it, so a row's bits don't depend on which tokens go
to its expert, and an expert without tokens costs nothing. Nothing waits for the device. No model
uses it yet.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from tgi_cli.kernels import devices
from tgi_cli.kernels.expert_routing import sort_by_expert
from tgi_cli.kernels.gated_activation import Activation, gated_activation
from tgi_cli.kernels.linear_tiles.tiling import Tile, Tiling

from .packing import PackedExperts, pack, why_not

__all__ = ["PackedExperts", "grouped_experts", "pack", "why_not"]


def grouped_experts(
    x: Tensor,
    gate_up: PackedExperts,
    down: PackedExperts,
    weights: Tensor,
    experts: Tensor,
    activation: Activation = "silu",
) -> Tensor:
    """Return [T, H] for `x` [T, H], each row through its `experts` [T, top_k] by `weights`."""
    assert (gate_up.codes is None) == (down.codes is None)
    y = torch.empty_like(x)
    if not len(x):
        return y
    from . import kernel

    tile = tile_for(gate_up.tiling(devices.target()), experts.numel(), gate_up.num_experts)
    tiles = sort_by_expert(experts, gate_up.num_experts, tile.rows)

    def products(x: Tensor, packed: PackedExperts, top_k: int, dtype: torch.dtype) -> Tensor:
        tiling = replace(packed.tiling(devices.target()), tiles=(tile,))
        return kernel.expert_products(x, packed, tiles, tiling, top_k=top_k, dtype=dtype)

    both = kernel.added(products(x, gate_up, experts.shape[1], x.dtype), x.dtype)
    gated = gated_activation(both, activation)
    kernel.combine(products(gated, down, 1, torch.float32), weights, out=y)
    return y


def tile_for(tiling: Tiling, num_pairs: int, num_experts: int) -> Tile:
    """Return the tile that has about as many rows as an expert, whatever the slices of a weight."""
    tiles = [tile for tile in tiling.tiles if not tile.is_for_one_slice]
    each = -(-num_pairs // num_experts)
    rows = next((tile.rows for tile in tiles if tile.rows >= each), tiles[-1].rows)
    # Of those with as many rows the one with most warps: sums of slices take registers.
    return max((tile for tile in tiles if tile.rows == rows), key=lambda tile: tile.num_warps)
