"""How a product is cut into programs: by the weight's shape, never by the number of rows.

An output element is a sum over K, which is cut into slices, and those into blocks:

    y[m, n] = slice 0 + slice 1 + ...        each from zero, block by block, in fp32

Where the cuts lie follows from the weight's shape and the GPU alone. Tiles of few rows and of many
run the same matrix instruction over the same blocks, and whether slices are computed by programs of
their own, whose partial sums another kernel adds, or one after the other by one program, is decided
by how many programs there are: it changes no bit. So a row has the same bits in every batch.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Tile:
    """What one program computes, and with what."""

    rows: int
    num_warps: int
    num_stages: int  # blocks on their way from memory, and the one that is multiplied
    columns: int = 0  # if not the tiling's: as many fill as many of the same matrix instruction
    is_for_one_slice: bool = False  # too large to keep the sum of a slice beside that of others


@dataclass(frozen=True, slots=True)
class Tiling:
    """The tiles of one kind of weight on one kind of GPU."""

    tiles: tuple[Tile, ...]  # ascending in rows; all compile to the same matrix instruction
    columns: int  # of a tile: output features; slices are cut by these
    depth: int  # of a block: input features
    num_programs: int  # that keep the memory busy: one or two for each multiprocessor
    min_blocks: int = 8  # of a slice: below, filling the pipeline costs more than slices gain
    options: Mapping[str, int] = field(default_factory=dict)  # the compiler's, for this GPU only


@dataclass(frozen=True, slots=True)
class Cut:
    """The work of one launch."""

    tile: Tile
    columns: int  # of a tile
    num_tiles: int
    num_slices: int
    blocks_per_slice: int
    is_split: bool  # slices are programs of their own

    @property
    def grid(self) -> tuple[int, int]:
        return self.num_tiles, self.num_slices if self.is_split else 1


_MAX_SLICES = 8
_FULL = 0.9  # of the multiprocessors


def cut(tiling: Tiling, num_rows: int, num_out: int, num_in: int, num_products: int = 1) -> Cut:
    """Return how [T, K] times [N, K] is computed; slices and blocks don't depend on `num_rows`.

    `num_products`: how many weights of this shape a row meets in one launch (experts).
    """
    num_blocks = -(-num_in // tiling.depth)
    num_columns, enough = -(-num_out // tiling.columns), _FULL * tiling.num_programs
    num_slices = 1
    while (
        num_slices < _MAX_SLICES
        and num_products * num_columns * num_slices < enough
        and num_blocks >= 2 * num_slices * tiling.min_blocks
    ):
        num_slices *= 2
    blocks_per_slice = -(-num_blocks // num_slices)
    num_slices = -(-num_blocks // blocks_per_slice)  # the last may be empty otherwise
    tiles = [tile for tile in tiling.tiles if num_slices == 1 or not tile.is_for_one_slice]
    tile = next((tile for tile in tiles if tile.rows >= num_rows), tiles[-1])
    columns = tile.columns or tiling.columns
    num_tiles = -(-num_rows // tile.rows) * -(-num_out // columns)
    is_split = num_slices > 1 and num_tiles < enough
    return Cut(tile, columns, num_tiles, num_slices, blocks_per_slice, is_split)
