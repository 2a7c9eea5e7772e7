"""What every product's test needs: small tiles, and a check of a row's bits in any company."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from tgi_cli.kernels.linear_tiles.tiling import Tile, Tiling, cut

NUM_OUT = 40  # two tiles of columns, the second cut off


def small_tiling(depth: int) -> Tiling:
    """Return tiles of 16 and 32 rows, over which NUM_OUT columns make four slices of 8 blocks."""
    tiles = (Tile(16, 4, 2), Tile(32, 4, 2, columns=64))
    return Tiling(tiles, columns=32, depth=depth, num_programs=5, min_blocks=2)


def assert_bits_stay(multiply: Callable[[Tensor], Tensor], x: Tensor, tiling: Tiling) -> None:
    """Hold rows of `x` [161, K] alone, in a few and elsewhere in the tile against all together.

    Few rows are computed in slices by programs of their own, many by one program in turn.
    """
    num_rows, num_in = x.shape
    few, many = (cut(tiling, n, NUM_OUT, num_in) for n in (1, num_rows))
    assert few.tile != many.tile
    assert few.is_split
    assert not many.is_split
    assert few.num_slices == many.num_slices == 4
    together = multiply(x)

    for rows in (slice(160, 161), slice(5, 16), slice(100, 118)):
        assert torch.equal(multiply(x[rows]), together[rows]), rows
    assert torch.equal(multiply(x.flip(0)[:40]), together.flip(0)[:40])
