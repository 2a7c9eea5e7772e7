"""Which tiles the products of experts have."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tgi_cli.kernels.devices import FAMILIES
from tgi_cli.kernels.expert_routing import max_tiles
from tgi_cli.kernels.grouped_experts import tile_for
from tgi_cli.kernels.linear_16bit.tuned import TUNED
from tgi_cli.kernels.linear_int4.tuned import tiling as int4_tiling
from tgi_cli.kernels.linear_tiles.tiling import cut


@pytest.mark.parametrize("target", FAMILIES)
@pytest.mark.parametrize("num_tokens", [1, 40, 700, 9000])
def test_every_gpu_has_a_tile_for_any_number_of_tokens(target, num_tokens):
    for tiling in (TUNED[target], int4_tiling(target, 128), int4_tiling(target, 256)):
        tile = tile_for(tiling, 8 * num_tokens, 128)
        num_rows = tile.rows * max_tiles(8 * num_tokens, 128, tile.rows)
        for num_out, num_in in ((1536, 2048), (2048, 768), (4096, 14336)):
            work = cut(replace(tiling, tiles=(tile,)), num_rows, num_out, num_in, num_products=8)

            assert work.tile == tile


def test_a_tile_is_about_as_high_as_an_expert_has_rows():
    tiling = TUNED["sm_80"]

    assert tile_for(tiling, 16, 8).rows == 16
    assert tile_for(tiling, 8 * 60, 8).rows == 64
    assert tile_for(tiling, 8 * 6000, 8).rows == 128
