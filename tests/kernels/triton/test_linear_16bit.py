"""The product with 16-bit weights in Triton, interpreted."""

from __future__ import annotations

import pytest
import torch

from tests.kernels.triton.numbers import DTYPES, assert_near, nans, randn
from tests.kernels.triton.products import NUM_OUT, assert_bits_stay, small_tiling
from tgi_cli.kernels import linear_16bit
from tgi_cli.kernels.linear_16bit import kernel, reference
from tgi_cli.kernels.linear_tiles.packing import in_blocks

TILING = small_tiling(depth=16)
# One block and part of one, three, and slices of nine blocks and less.
DEPTHS = [16, 7, 48, 519]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("num_in", DEPTHS)
@pytest.mark.parametrize(("num_rows", "num_out"), [(1, 1), (17, 33)])
def test_product_matches_reference(num_rows, num_out, num_in, dtype):
    x, weight = randn(num_rows, num_in, dtype=dtype), randn(num_out, num_in, dtype=dtype)
    bias, out = randn(num_out), nans(num_rows, num_out, dtype=dtype)

    kernel.linear_16bit(x, in_blocks(weight, 16), bias, out=out, tiling=TILING)

    assert_near(out, reference.linear_16bit(x.double(), weight.double(), bias))


def test_every_tile_of_many_rows_and_columns_is_computed():
    x, weight = randn(333, 16, dtype=torch.float16), randn(150, 16, dtype=torch.float16)
    out = nans(333, 150, dtype=torch.float16)

    kernel.linear_16bit(x, weight, None, out=out, tiling=TILING)

    assert_near(out, reference.linear_16bit(x.double(), weight, None))


def test_a_weight_larger_than_32_bits_count_is_found():
    far = torch.empty(2**31 + 32, dtype=torch.float16)  # takes no memory until it is touched
    weight = far.as_strided((2, 16), (2**31 + 8, 1))
    weight.copy_(randn(2, 16))
    x, out = randn(1, 16, dtype=torch.float16), nans(1, 2, dtype=torch.float16)

    kernel.linear_16bit(x, weight, None, out=out, tiling=TILING)

    assert_near(out, reference.linear_16bit(x.double(), weight, None))


@pytest.mark.parametrize("num_in", [48, 519])
def test_sums_come_out_in_fp32_and_rows_may_be_apart(num_in):
    x = randn(9, num_in + 8, dtype=torch.float16)[:, 5 : 5 + num_in]
    weight = randn(NUM_OUT, num_in, dtype=torch.float16)
    out = nans(9, NUM_OUT + 3)

    kernel.linear_16bit(x, in_blocks(weight, 16), None, out=out[:, :NUM_OUT], tiling=TILING)

    # Sums in fp32 are held to a bound on sums in fp32.
    bound = (x.double().abs() @ weight.double().abs().T) * num_in * 2**-24
    exact = reference.linear_16bit(x.double(), weight, None)
    assert bool(((out[:, :NUM_OUT] - exact).abs() <= bound).all())
    assert bool(out[:, NUM_OUT:].isnan().all())


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_row_has_the_same_bits_in_every_company(dtype):
    weight = in_blocks(randn(NUM_OUT, 171, dtype=dtype), 16)

    def multiply(x):
        out = nans(len(x), NUM_OUT)
        kernel.linear_16bit(x, weight, randn(NUM_OUT), out=out, tiling=TILING)
        return out

    assert_bits_stay(multiply, randn(161, 171, dtype=dtype), TILING)


def test_a_weight_and_its_rows_move_once(traffic):
    packed = linear_16bit.pack(
        randn(256, 512, dtype=torch.float16), device="cpu", dtype=torch.float16
    )
    x = randn(3, 512, dtype=torch.float16)

    linear_16bit.linear_16bit(x, packed)

    num_columns = 2  # tiles, each of which reads x
    assert traffic.total == 2 * (256 * 512 + num_columns * 3 * 512 + 3 * 256)


def test_a_weight_that_fits_is_shared_and_none_is_multiplied_by_no_rows():
    weight = randn(5, 128, dtype=torch.bfloat16)

    packed = linear_16bit.pack(weight, device="cpu", dtype=torch.bfloat16)

    assert packed.weight.data_ptr() == weight.data_ptr()
    assert packed.num_bytes == 5 * 128 * 2
    assert linear_16bit.linear_16bit(randn(0, 128, dtype=torch.bfloat16), packed).shape == (0, 5)
