"""`Codes` as the kernel reads them: in words of 16 bits, a row of whole blocks.

A block is `depth` input features, cut into parts of `width`: the codes of the features at one place
in each part share a word, those of the first part in its lowest bits. So a thread that has read a
word has numbers for as many matrix products, and what the parts multiply are stretches of x.
fp8 that tensor cores multiply are not packed; their block is one part.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor

from tgi_cli.kernels.linear_tiles.packing import in_blocks, num_bytes

if TYPE_CHECKING:
    from tgi_cli.kernels.linear import Codes
    from tgi_cli.kernels.linear_tiles.tiling import Tile, Tiling

Kind = Literal["int8", "e4m3", "table4", "fp8"]
PARTS: dict[Kind, int] = {"int8": 2, "e4m3": 2, "table4": 4, "fp8": 1}
MIN_WIDTH = 16  # of a part: what a matrix instruction takes
MAX_WIDTH = {"int8": 64, "e4m3": 64, "table4": 32, "fp8": 128}
_HALF_ROWS = 64  # at most, unless codes are fp8


@dataclass(frozen=True, slots=True)
class PackedCodes:
    """A weight [N, K] on its GPU."""

    kind: Kind
    words: Tensor  # [N, K up to whole blocks / parts] int16; fp8: [N, K up to whole blocks]
    num_in: int
    tiling: Tiling
    group_size: int  # 0: `scales` hold for whole rows
    scales: Tensor | None  # [N] fp32
    group_scales: Tensor | None  # [groups of whole blocks, N] fp16 or fp32
    table: Tensor | None  # [16] of x's type
    bias: Tensor | None  # [N] fp32
    input_order: Tensor | None  # [K] int64: column j multiplies x[:, input_order[j]]

    @property
    def num_out(self) -> int:
        return self.words.shape[0]

    @property
    def parts(self) -> int:
        return PARTS[self.kind]

    @property
    def parts_per_scale(self) -> int:
        """How many parts in a row have a scale in common, wherever in K the block lies."""
        depth = self.tiling.depth
        if self.group_size % depth == 0:
            return self.parts
        return self.group_size * self.parts // depth if depth % self.group_size == 0 else 1

    def halves_of(self, tile: Tile) -> int:
        """Return of how many products, which share the widened weights, a tile consists.

        128 rows are two of 64: one of 128 would be another matrix instruction than that of 64.
        """
        return 2 if self.kind != "fp8" and tile.rows > _HALF_ROWS else 1

    @property
    def num_bytes(self) -> int:
        return num_bytes(
            self.words, self.scales, self.group_scales, self.table, self.bias, self.input_order
        )


def width_for(kind: Kind, group_size: int) -> int:
    """Return the features of a part: the most of which groups are multiples; 0: rows whole."""
    if group_size == 0:
        return MAX_WIDTH[kind]
    return min(group_size & -group_size, MAX_WIDTH[kind])


def words_of(codes: Tensor, kind: Kind, depth: int) -> Tensor:
    """Return codes [N, K] as words, zeros after the last."""
    if kind == "fp8":
        return in_blocks(codes, depth)
    parts = PARTS[kind]
    bits = in_blocks(codes.view(torch.uint8), depth).view(len(codes), -1, parts, depth // parts)
    words = torch.zeros(bits[:, :, 0].shape, dtype=torch.int16, device=codes.device)
    for part in range(parts):
        words |= bits[:, :, part].to(torch.int16) << (16 // parts * part)
    return words.flatten(1)


def scales_of_groups(weight: Codes, depth: int) -> Tensor:
    """Return scales [groups, N], zeros for the groups with which the last block is filled up."""
    num_in = weight.codes.shape[1]
    num_groups = -(-(-(-num_in // depth) * depth) // weight.group_size)
    scales = weight.scales.new_zeros(num_groups, len(weight.scales))
    scales[: weight.scales.shape[1]] = weight.scales.T
    return scales
