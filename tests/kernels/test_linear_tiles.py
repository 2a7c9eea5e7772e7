"""The cut of a product into tiles and slices."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from tgi_cli.kernels.linear_tiles.tiling import Tile, Tiling, cut

TILING = Tiling((Tile(16, 4, 3), Tile(128, 8, 3)), columns=128, depth=64, num_programs=132)
SIZES = st.integers(1, 40_000)


@given(num_out=SIZES, num_in=SIZES, one=SIZES, other=SIZES)
def test_slices_follow_from_the_weights_shape_alone(num_out, num_in, one, other):
    few, many = cut(TILING, one, num_out, num_in), cut(TILING, other, num_out, num_in)

    assert (few.num_slices, few.blocks_per_slice) == (many.num_slices, many.blocks_per_slice)


@given(num_rows=SIZES, num_out=SIZES, num_in=SIZES)
def test_slices_hold_all_blocks_and_none_is_empty(num_rows, num_out, num_in):
    work = cut(TILING, num_rows, num_out, num_in)

    num_blocks = -(-num_in // TILING.depth)
    assert work.blocks_per_slice * (work.num_slices - 1) < num_blocks
    assert work.blocks_per_slice * work.num_slices >= num_blocks
    assert work.num_tiles * work.tile.rows * TILING.columns >= num_rows * num_out


def test_a_narrow_weight_is_cut_until_the_gpu_is_busy():
    decode = cut(TILING, 1, 4096, 4096)

    assert decode.grid == (32, 4)


def test_many_rows_need_no_programs_for_slices():
    prefill = cut(TILING, 4096, 4096, 4096)

    assert prefill.num_slices == 4
    assert prefill.grid == (32 * 32, 1)


def test_a_wide_weight_is_one_slice():
    assert cut(TILING, 1, 128_256, 4096).num_slices == 1
