"""Tiles of the attention kernels, by target and head size; never by what a step holds.

What decides a row's bits is the same for both kernels: KEYS, CHUNK, and on sm_80 the width of a
sum, since Triton spreads the keys over warps where it is wider than the tile has rows. ROWS decides
nothing: each warp has 16 rows of its own, on sm_90 four of them the 64 of one wgmma.

Chosen by what the compiler says (no spills, `python -m tools.kernels`), not by a clock.
"""

from __future__ import annotations

from dataclasses import dataclass

CHUNK = 256  # keys that one program of a decode goes through
SPLIT_ROWS = 64
MAX_HEAD_DIM = 256


@dataclass(frozen=True, slots=True)
class Tiles:
    """How the kernels cut the work of one head size on one target."""

    keys: int  # of one turn of the loop
    sum_width: int  # numbers of a head that one sum holds
    split_stages: int  # a program has the sums of a whole head
    whole_sums: int  # how many sums a program has
    whole_rows: int  # queries times heads of its tile
    whole_stages: int

    def __post_init__(self) -> None:
        assert CHUNK % self.keys == 0, self.keys


# By target, padded head size, and whether the cache is fp8.
_TILES = {
    ("sm_80", 64, False): Tiles(64, 64, 2, 1, 64, 2),
    ("sm_80", 128, False): Tiles(32, 64, 3, 2, 64, 2),
    ("sm_80", 256, False): Tiles(16, 64, 3, 2, 64, 2),
    ("sm_80", 64, True): Tiles(32, 64, 1, 1, 64, 1),
    ("sm_80", 128, True): Tiles(32, 64, 1, 2, 64, 1),
    ("sm_80", 256, True): Tiles(16, 64, 1, 2, 64, 1),
    ("sm_90", 64, False): Tiles(64, 64, 3, 1, 128, 3),
    ("sm_90", 128, False): Tiles(64, 128, 2, 1, 128, 2),
    ("sm_90", 256, False): Tiles(32, 128, 2, 1, 128, 2),
    ("sm_90", 64, True): Tiles(64, 64, 3, 1, 128, 3),
    ("sm_90", 128, True): Tiles(64, 128, 2, 1, 128, 2),
    ("sm_90", 256, True): Tiles(32, 128, 2, 1, 128, 2),
    ("gfx942", 64, False): Tiles(64, 64, 2, 1, 64, 2),
    ("gfx942", 128, False): Tiles(32, 128, 2, 1, 64, 2),
    ("gfx942", 256, False): Tiles(32, 128, 1, 1, 64, 1),
    ("gfx942", 64, True): Tiles(64, 64, 2, 1, 64, 2),
    ("gfx942", 128, True): Tiles(32, 128, 2, 1, 64, 2),
    ("gfx942", 256, True): Tiles(32, 128, 1, 1, 64, 1),
}


def head_pad(head_dim: int) -> int:
    """Return the power of two that a head is filled up to with zeros."""
    return max(64, 1 << (head_dim - 1).bit_length())


def tiles_for(target: str, head_dim: int, *, is_fp8: bool) -> Tiles:
    return _TILES[target, head_pad(head_dim), is_fp8]
