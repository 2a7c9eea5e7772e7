"""Tiles of the product with four-bit codes, by GPU.

Chosen by what compiles without spills, by the instructions of the hot loop (4 for a weight with few
rows) and by the bound of `tools/kernels/roofline.py`; none of it was timed on a GPU. Weights are
the operand with 64 rows, so that a tile may have few rows of x, and each of its warps 32 columns or
64: the more columns, the fewer instructions of a weight go to x.

- sm_80: mma.sync m16n8k16 throughout. Programs of 2 warps, 4 to a multiprocessor.
- sm_90: wgmma m64n64k16 throughout: with another number of rows it would be another instruction, so
  128 rows are two of it, which share the weights. Two programs of few rows fit on a multiprocessor.
  With many rows sums of slices are added in registers, so each warp has half the columns then; the
  tile of 64 rows with 8 warps is for experts, which add slices with few rows, too.
- gfx942: instructions of 16 by 16, whatever the tile; 32 rows at least, for loads of 16 bytes of x.
"""

from __future__ import annotations

from dataclasses import replace

from tgi_cli.kernels.linear_tiles.tiling import Tile, Tiling

TUNED: dict[str, Tiling] = {
    "sm_80": Tiling(
        (Tile(16, num_warps=2, num_stages=4), Tile(64, 4, 3)),
        columns=64,
        depth=256,
        num_programs=4 * 108,
        min_blocks=4,
    ),
    "sm_90": Tiling(
        (Tile(64, num_warps=4, num_stages=2), Tile(64, 8, 3), Tile(128, 8, 2)),
        columns=128,
        depth=256,
        num_programs=2 * 132,
        min_blocks=4,
    ),
    "gfx942": Tiling(
        (Tile(32, num_warps=2, num_stages=2), Tile(64, 4, 2)),
        columns=64,
        depth=256,
        num_programs=4 * 304,
        min_blocks=4,
        options={"matrix_instr_nonkdim": 16},
    ),
}


def tiling(target: str, depth: int) -> Tiling:
    """Return the tiles for a weight in blocks of `depth` input features."""
    return replace(TUNED[target], depth=depth)
