"""The weights of all experts on their GPU, one after the other in the layout of one."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from tgi_cli.kernels import linear_int4
from tgi_cli.kernels.linear_16bit import tuned as tuned_16bit
from tgi_cli.kernels.linear_int4 import PackedInt4
from tgi_cli.kernels.linear_int4 import tuned as tuned_int4
from tgi_cli.kernels.linear_tiles.packing import in_blocks, num_bytes

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tgi_cli.kernels.linear import Codes
    from tgi_cli.kernels.linear_tiles.tiling import Tiling


@dataclass(frozen=True, slots=True)
class PackedExperts:
    """Experts' weights [E, N, K] on their GPU: in 16 bits, or as codes."""

    weight: Tensor | None  # [E, N, K up to whole blocks]
    codes: PackedInt4 | None  # words, grids: those of each expert after one another
    num_experts: int
    num_out: int
    num_in: int

    @property
    def num_bytes(self) -> int:
        return num_bytes(self.weight) + (0 if self.codes is None else self.codes.num_bytes)

    def tiling(self, target: str) -> Tiling:
        """Return the tiles of these weights on a GPU of `target`."""
        if self.codes is not None:
            return tuned_int4.tiling(target, self.codes.depth)
        return tuned_16bit.TUNED[target]


def why_not(weights: Tensor | Sequence[Codes]) -> str | None:
    """Say why the kernel has no such experts, or None if it has."""
    if isinstance(weights, Tensor):
        is_half = weights.dtype in (torch.float16, torch.bfloat16)
        return None if is_half else f"{weights.dtype} has no 16 bits"
    for each in weights:
        if (reason := linear_int4.why_not(each)) is not None:
            return reason
        if each.input_order is not None:
            return "the input features of an expert are in an order of their own"
        if each.group_size != weights[0].group_size:
            return "experts have groups of different sizes"
    return None


def pack(weights: Tensor | Sequence[Codes], *, device: torch.device | str) -> PackedExperts:
    """Return `weights` [E, N, K] on `device`; `why_not(weights)` must be None.

    A tensor that is there already, and whose K is whole blocks, is shared, not copied.
    """
    reason = why_not(weights)
    assert reason is None, reason
    if isinstance(weights, Tensor):
        depth = next(iter(tuned_16bit.TUNED.values())).depth  # of all GPUs
        rows = in_blocks(weights.to(device).flatten(0, 1), depth)
        return PackedExperts(rows.unflatten(0, weights.shape[:2]), None, *weights.shape)
    is_wide = any(each.scales.dtype != torch.float16 for each in weights)
    packed = [
        linear_int4.pack(_widen(each) if is_wide else each, device=device) for each in weights
    ]
    together = replace(
        packed[0],
        words=torch.stack([each.words for each in packed]),
        grids=torch.stack([each.grids for each in packed]),
    )
    return PackedExperts(None, together, len(packed), together.num_out, together.num_in)


def _widen(weight: Codes) -> Codes:
    offsets = None if weight.offsets is None else weight.offsets.float()
    return replace(weight, scales=weight.scales.float(), offsets=offsets)
