"""Tiles of the product with 16-bit weights, by GPU.

Chosen by what compiles without spills and by the bound of `tools/kernels/roofline.py`; none of it
was timed on a GPU.

- sm_90: 64 rows are the least that compile to wgmma; 128 by 128 is what the tensor cores need to be
  fed from shared memory. Three blocks of 16 KiB on their way to each of 132 multiprocessors are
  three times what the memory's latency asks for.
- sm_80: every tile is mma.sync m16n8k16, so one of 16 rows spares work in decode. 96 KiB of shared
  memory at most, which the smaller GPUs of the family have too.
- gfx942: 64 KiB of shared memory; instructions of 16 by 16, whatever the tile.
"""

from __future__ import annotations

from tgi_cli.kernels.linear_tiles.tiling import Tile, Tiling

TUNED: dict[str, Tiling] = {
    "sm_80": Tiling(
        (Tile(16, num_warps=8, num_stages=4), Tile(64, 4, 4), Tile(128, 8, 4)),
        columns=128,
        depth=64,
        num_programs=108,
    ),
    "sm_90": Tiling(
        (
            Tile(64, num_warps=4, num_stages=4),
            Tile(128, 8, 4),
            Tile(256, 8, 4, is_for_one_slice=True),
        ),
        columns=128,
        depth=64,
        num_programs=132,
    ),
    "gfx942": Tiling(
        (Tile(16, num_warps=4, num_stages=2), Tile(64, 4, 2), Tile(128, 8, 2)),
        columns=128,
        depth=64,
        num_programs=304,
        options={"matrix_instr_nonkdim": 16},
    ),
}
