"""The product with four-bit codes in Triton, interpreted."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from tests.builders.packers import pack_awq, pack_gptq, random_grid
from tests.kernels.triton.numbers import DTYPES, assert_near, nans, randn
from tests.kernels.triton.products import small_tiling
from tgi_cli.kernels import linear_int4
from tgi_cli.kernels.linear import Codes
from tgi_cli.kernels.linear_int4 import kernel, reference
from tgi_cli.kernels.linear_tiles.tiling import Tile, Tiling, cut
from tgi_cli.runtime.config.quantization import Awq, Gptq
from tgi_cli.runtime.layers.quantization.awq import read_awq
from tgi_cli.runtime.layers.quantization.gptq import read_gptq
from tgi_cli.runtime.layers.quantization.grouped_codes import matrix_of

# Groups of one part of a block, of no whole number of parts, of less than a block, of one and of
# more; K of less than a block, of three blocks and of many.
GROUPS = [(16, 7), (48, 519), (32, 768), (128, 384), (64, 2000), (512, 1024)]


def random_codes(num_out: int, num_in: int, group_size: int, seed: int = 0) -> Codes:
    generator = torch.Generator().manual_seed(seed)
    codes = torch.randint(16, (num_out, num_in), generator=generator, dtype=torch.uint8)
    shape = (num_out, -(-num_in // group_size))
    scales = (torch.randint(32, 96, shape, generator=generator) / 64).half()  # times zeros: exact
    zeros = torch.randint(4, 12, shape, generator=generator)
    return Codes(codes, scales, -zeros * scales, group_size)


def multiply(weight: Codes, x: torch.Tensor, bias: torch.Tensor | None = None) -> torch.Tensor:
    packed = linear_int4.pack(weight, bias, device="cpu")
    out = nans(len(x), packed.num_out, dtype=x.dtype)
    kernel.linear_int4(x, packed, out=out, tiling=small_tiling(packed.depth))
    return out


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("group_size", "num_in"), GROUPS)
def test_product_matches_reference(group_size, num_in, dtype):
    weight, bias = random_codes(33, num_in, group_size), randn(33)
    x = randn(17, num_in + 5, dtype=dtype)[:, 5:]

    y = multiply(weight, x, bias)

    assert_near(y, reference.linear_int4(x.double(), weight, bias))


@pytest.mark.parametrize("group_size", [16, 128])
def test_grids_of_fp32_and_grids_without_offsets_are_multiplied(group_size):
    halves = random_codes(5, 300, group_size)
    wide = replace(halves, scales=halves.scales / 3.0, offsets=halves.offsets.float() * 1.1)
    wide = replace(wide, scales=wide.scales.float())
    without = replace(halves, offsets=None)
    x = randn(2, 300, dtype=torch.float16)

    for weight in (wide, without):
        assert_near(multiply(weight, x), reference.linear_int4(x.double(), weight, None))


def test_a_code_at_its_zero_point_weighs_nothing():
    weight = random_codes(4, 64, 32)
    zeros = (-weight.offsets / weight.scales).round().byte()
    weight = replace(weight, codes=zeros.repeat_interleave(32, 1))

    y = multiply(weight, randn(3, 64, dtype=torch.float16))

    assert torch.equal(y, torch.zeros(3, 4, dtype=torch.float16))


def test_a_row_has_the_same_bits_in_every_company():
    packed = linear_int4.pack(random_codes(40, 500, 48), randn(40), device="cpu")
    x = randn(130, 500, dtype=torch.float16)
    tiles = (Tile(16, 4, 2), Tile(128, 8, 2))  # the larger is two products of half its rows
    tiling = Tiling(tiles, columns=16, depth=packed.depth, num_programs=4, min_blocks=1)
    few, many = (cut(tiling, num_rows, 40, 500) for num_rows in (1, 130))
    assert (few.is_split, many.is_split) == (True, False)
    assert few.num_slices == many.num_slices == 2

    def multiply(rows):
        out = nans(len(x[rows]), 40)
        kernel.linear_int4(x[rows], packed, out=out, tiling=tiling)
        return out

    together = multiply(slice(0, 130))

    for rows in (slice(129, 130), slice(5, 16), slice(60, 70), slice(3, 130)):
        assert torch.equal(multiply(rows), together[rows]), rows


@pytest.mark.parametrize("has_act_order", [False, True])
def test_checkpoints_of_gptq_are_multiplied(has_act_order):
    grid = random_grid(24, 128, 32)
    if has_act_order:
        order = torch.randperm(128, generator=torch.Generator().manual_seed(3))
        grid = replace(grid, groups=grid.groups[order])
    format = Gptq(
        bits=4,
        group_size=32,
        is_symmetric=False,
        has_act_order=has_act_order,
        stores_zero_minus_one=False,
    )
    x = randn(3, 128, dtype=torch.float16)
    weight = matrix_of(read_gptq(format, pack_gptq(grid, 4, version=2)))

    y = linear_int4.linear_int4(x, linear_int4.pack(weight, device="cpu"), torch.float16)

    assert (weight.input_order is not None) == has_act_order
    assert_near(y, x.double() @ grid.weights().double().T)


def test_checkpoints_of_awq_are_multiplied():
    grid = random_grid(24, 384, 128)
    x = randn(3, 384, dtype=torch.bfloat16)
    weight = matrix_of(read_awq(Awq(group_size=128), pack_awq(grid)))

    y = linear_int4.linear_int4(x, linear_int4.pack(weight, device="cpu"))

    assert_near(y, x.double() @ grid.weights().double().T)


def test_few_rows_move_little_more_than_the_codes(traffic):
    num_out, num_in, group_size = 256, 2048, 128
    packed = linear_int4.pack(random_codes(num_out, num_in, group_size), device="cpu")
    x = randn(1, num_in, dtype=torch.float16)

    linear_int4.linear_int4(x, packed)

    grids = 4 * num_out * num_in // group_size
    assert traffic.total <= 1.1 * (num_out * num_in // 2 + grids + 2 * (num_in + num_out))


def test_a_grid_that_the_kernel_lacks_is_told():
    weight = random_codes(4, 80, 40)

    assert linear_int4.why_not(weight) == "groups of 40 are no multiple of 16"
    assert linear_int4.why_not(replace(weight, table=torch.zeros(16))) is not None
    assert linear_int4.why_not(replace(weight, codes=weight.codes.char())) is not None
    assert linear_int4.why_not(random_codes(4, 80, 80)) is None


def test_no_rows_make_no_product():
    packed = linear_int4.pack(random_codes(5, 64, 32), device="cpu")

    assert linear_int4.linear_int4(randn(0, 64, dtype=torch.float16), packed).shape == (0, 5)
