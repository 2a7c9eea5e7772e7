"""Tiles of the product with codes, by GPU and by where scales are applied.

Chosen by what compiles without spills and by the bound of `tools/kernels/roofline.py`; none of it
was timed on a GPU. Two programs to a multiprocessor: widening codes takes four or more instructions
a weight, which one program of four warps can't issue as fast as memory delivers.

- sm_90: a warpgroup multiplies 64 columns by 64 rows (fp8: 128) in one instruction, of which larger
  tiles have more. More rows to an instruction of 16 bits would fill shared memory with zeros in
  decode, at a quarter of its bandwidth.
- sm_80: every tile is mma.sync m16n8k16. 96 KiB of shared memory at most, which the smaller GPUs of
  the family have too.
- gfx942: 64 KiB of shared memory; instructions of 16 by 16, whatever the tile.
"""

from __future__ import annotations

from dataclasses import replace

from tgi_cli.kernels.linear_codes.packing import Kind
from tgi_cli.kernels.linear_tiles.tiling import Tile, Tiling

_AMD = {"matrix_instr_nonkdim": 16}

# Scales of whole rows: one sum for each output.
BY_ROW: dict[str, Tiling] = {
    "sm_80": Tiling(
        (
            Tile(16, num_warps=4, num_stages=4),
            Tile(64, 4, 4),
            Tile(64, 8, 3, columns=128),
            Tile(128, 8, 2, columns=128, is_for_one_slice=True),
        ),
        columns=64,
        depth=128,
        num_programs=216,
    ),
    "sm_90": Tiling((Tile(64, 4, 3), Tile(128, 8, 3, columns=128)), 64, 128, 264),
    "gfx942": Tiling(
        (Tile(32, 4, 2), Tile(64, 4, 2), Tile(128, 8, 2, columns=128)), 64, 128, 608, options=_AMD
    ),
}
# Scales of groups: a sum for each output, and one of its group.
BY_GROUP: dict[str, Tiling] = {
    "sm_80": Tiling((Tile(16, 4, 4), Tile(64, 4, 3), Tile(64, 8, 3, columns=128)), 64, 128, 216),
    "sm_90": Tiling(
        (
            Tile(64, 4, 3),
            Tile(64, 8, 3, columns=128),
            Tile(128, 8, 3, columns=128, is_for_one_slice=True),
        ),
        columns=64,
        depth=128,
        num_programs=264,
    ),
    "gfx942": Tiling(
        (Tile(32, 4, 2), Tile(64, 4, 2), Tile(64, 8, 2, columns=128)), 64, 128, 608, options=_AMD
    ),
}
# fp8 isn't widened, so its sums may have more registers, and takes half the shared memory.
IN_FP8: dict[str, Tiling] = {
    "sm_90": Tiling((Tile(128, 4, 3), Tile(128, 8, 3, columns=128)), 64, 128, 264),
}
# Looked-up numbers are many loads on their way, and a register for each.
BY_TABLE: dict[str, Tiling] = BY_GROUP | {
    "sm_80": Tiling(
        (
            Tile(16, 4, 4),
            Tile(32, 4, 3),
            Tile(32, 8, 3, columns=128),
            Tile(64, 8, 3, columns=128, is_for_one_slice=True),
        ),
        columns=64,
        depth=128,
        num_programs=216,
    ),
}


def tiling_for(target: str, kind: Kind, *, is_by_row: bool, depth: int) -> Tiling:
    """Return the tiles for blocks of `depth`, by which small groups go."""
    by_kind = {"fp8": IN_FP8, "table4": BY_TABLE}
    tuned = by_kind.get(kind, BY_ROW if is_by_row else BY_GROUP)
    return replace(tuned[target], depth=depth)
