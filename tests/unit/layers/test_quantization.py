"""Each format's tensors, written by the tests' own packers, are read back to the last bit."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file

from tests.builders.packers import (
    RandomGrid,
    bit_stream,
    pack_awq,
    pack_compressed,
    pack_gptq,
    pack_marlin,
    random_grid,
)
from tgi_cli.kernels import linear
from tgi_cli.kernels.linear import Codes
from tgi_cli.runtime.config.quantization import Awq, Gptq, Marlin, PackQuantized
from tgi_cli.runtime.layers.linear import Projection, side_by_side
from tgi_cli.runtime.layers.quantization import BadTensorError, load_matrix
from tgi_cli.runtime.layers.quantization.bit_stream import unpack

WRITTEN_BY_GPTQMODEL = Path(__file__).parent / "data" / "gptqmodel_7_6_0.safetensors"


def gptq(bits: int = 4, group_size: int | None = 32, **changes: bool) -> Gptq:
    settings = {"is_symmetric": False, "has_act_order": False, "stores_zero_minus_one": False}
    return Gptq(bits=bits, group_size=group_size, **{**settings, **changes})


def shuffled(grid: RandomGrid) -> RandomGrid:
    """Return the grid with the groups of its input features anywhere, as act-order leaves them."""
    order = torch.randperm(len(grid.groups), generator=torch.Generator().manual_seed(3))
    return dataclasses.replace(grid, groups=grid.groups[order])


def widened(matrix: torch.Tensor | Codes) -> torch.Tensor:
    return matrix.dequantize() if isinstance(matrix, Codes) else matrix


@given(
    bits=st.sampled_from([2, 3, 4, 8]), num_rows=st.integers(1, 5), num_runs=st.integers(1, 4),
    seed=st.integers(0, 99),
)  # fmt: skip
@settings(deadline=None, max_examples=40)
def test_a_stream_of_codes_is_unpacked(bits, num_rows, num_runs, seed):
    generator = torch.Generator().manual_seed(seed)
    codes = torch.randint(0, 1 << bits, (num_rows, 32 * num_runs), generator=generator)

    assert torch.equal(unpack(bit_stream(codes, bits), bits).long(), codes)


@pytest.mark.parametrize("bits", [2, 3, 4, 8])
@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize("group_size", [32, None])
@pytest.mark.parametrize("is_symmetric", [True, False])
@pytest.mark.parametrize("has_act_order", [True, False])
def test_gptq_is_read(bits, version, group_size, is_symmetric, has_act_order):
    grid = random_grid(
        64, 160, group_size, bits, is_symmetric=is_symmetric, lowest_zero=int(version == 1)
    )
    grid = shuffled(grid) if has_act_order else grid
    format = gptq(bits, group_size, stores_zero_minus_one=version == 1)

    matrix = load_matrix(format, pack_gptq(grid, bits, version=version))

    assert torch.equal(widened(matrix), grid.weights())
    assert isinstance(matrix, Codes)


def test_awq_is_read():
    grid = random_grid(72, 96, 48)

    matrix = load_matrix(Awq(group_size=48), pack_awq(grid))

    assert torch.equal(widened(matrix), grid.weights())


@pytest.mark.parametrize("group_size", [64, None])
def test_marlins_tiles_are_read(group_size):
    grid = random_grid(128, 192, group_size, is_symmetric=True)

    matrix = load_matrix(Marlin(group_size=group_size), pack_marlin(grid))

    assert torch.equal(widened(matrix), grid.weights())


@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("is_symmetric", [True, False])
@pytest.mark.parametrize("group_size", [32, None])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_packed_integers_of_compressed_tensors_are_read(bits, is_symmetric, group_size, dtype):
    grid = random_grid(37, 96, group_size, bits, is_symmetric=is_symmetric, dtype=dtype)
    format = PackQuantized(bits=bits, group_size=group_size, is_symmetric=is_symmetric)

    matrix = load_matrix(format, pack_compressed(grid, bits, is_symmetric=is_symmetric))

    assert torch.equal(widened(matrix), grid.weights())


def test_one_scale_of_a_whole_tensor_is_read():
    grid = random_grid(37, 96, None, is_symmetric=True)
    grid = dataclasses.replace(grid, s=grid.s[:1].expand(37, 1))
    format = PackQuantized(bits=4, group_size=None, is_symmetric=True, has_one_scale=True)
    tensors = {**pack_compressed(grid, 4, is_symmetric=True), "weight_scale": grid.s[0]}

    assert torch.equal(widened(load_matrix(format, tensors)), grid.weights())


def test_zero_points_that_are_stored_count_whatever_is_said_of_symmetry():
    grid = random_grid(40, 96, 32, lowest_zero=1)
    assert len(grid.z.unique()) > 2
    packed = PackQuantized(bits=4, group_size=32, is_symmetric=True)
    tensors = pack_compressed(grid, 4, is_symmetric=False)
    loose = {**tensors, "weight_zero_point": (grid.z - 8).to(torch.int8)}
    said = gptq(is_symmetric=True, stores_zero_minus_one=True)

    matrices = [
        load_matrix(packed, tensors),
        load_matrix(packed, loose),
        load_matrix(said, pack_gptq(grid, 4, version=1)),
    ]

    assert all(torch.equal(widened(matrix), grid.weights()) for matrix in matrices)


def test_loose_zero_points_beyond_the_codes_are_refused():
    grid = random_grid(40, 96, 32, is_symmetric=True)
    tensors = pack_compressed(grid, 4, is_symmetric=True)
    tensors["weight_zero_point"] = torch.full((40, 3), 8, dtype=torch.int8)

    with pytest.raises(BadTensorError, match="no zero points of 4 bits"):
        load_matrix(PackQuantized(bits=4, group_size=32, is_symmetric=True), tensors)


@pytest.mark.parametrize("has_act_order", [True, False])
def test_a_product_is_that_of_the_plain_weights(has_act_order):
    grid = random_grid(64, 160, 32)
    grid = shuffled(grid) if has_act_order else grid
    x = torch.randn(5, 160, generator=torch.Generator().manual_seed(1))
    matrix = load_matrix(gptq(), pack_gptq(grid, 4, version=2))
    assert isinstance(matrix, Codes)
    order = torch.arange(160) if matrix.input_order is None else matrix.input_order

    y = linear.linear(x, linear.pack(matrix))

    exact = x[:, order].double() @ grid.weights()[:, order].double().T
    torch.testing.assert_close(y.double(), exact, rtol=0, atol=2e-6 * float(exact.abs().max()))


def test_matrices_with_and_without_offsets_are_one_product():
    grids = [
        random_grid(32, 96, 32, 8, is_symmetric=True),
        random_grid(64, 96, 32, 8, seed=1, dtype=torch.bfloat16),
    ]
    matrices = [load_matrix(gptq(8), pack_gptq(grid, 8, version=2)) for grid in grids]
    x = torch.randn(5, 96, generator=torch.Generator().manual_seed(1))

    fused = Projection(side_by_side(matrices))

    assert fused.num_bytes < 96 * 96 * 2  # still 8 bits
    assert torch.equal(fused(x), torch.cat([Projection(matrix)(x) for matrix in matrices], 1))


def test_symmetric_codes_keep_scales_of_16_bits():
    matrix = load_matrix(
        gptq(), pack_gptq(random_grid(64, 160, 32, is_symmetric=True), 4, version=2)
    )

    assert isinstance(matrix, Codes)
    assert matrix.scales.dtype == torch.float16


def test_groups_of_unequal_size_are_dequantised():
    grid = random_grid(64, 96, 32)
    grid = dataclasses.replace(grid, groups=torch.where(grid.groups == 1, 2, grid.groups))

    matrix = load_matrix(gptq(), pack_gptq(grid, 4, version=2))

    assert isinstance(matrix, torch.Tensor)
    assert torch.equal(matrix, grid.weights())


def test_zero_points_that_gptqmodel_took_from_a_whole_word_are_read():
    grid = random_grid(64, 96, 32)
    assert int(grid.z.min()) == 0
    tensors = pack_gptq(grid, 4, version=2)
    ones = torch.tensor(0x11111111, dtype=torch.int32)
    tensors["qzeros"] = (tensors["qzeros"].long() - ones).to(torch.int32)

    matrix = load_matrix(gptq(stores_zero_minus_one=True, borrows=True), tensors)

    assert torch.equal(widened(matrix), grid.weights())


@pytest.mark.parametrize(
    ("name", "format"),
    [
        ("sym", gptq(is_symmetric=True, stores_zero_minus_one=True, borrows=True)),
        ("asym", gptq(stores_zero_minus_one=True, borrows=True)),
        ("act", gptq(has_act_order=True)),
        ("b3", gptq(3, stores_zero_minus_one=True, borrows=True)),
        ("b8", gptq(8, None, is_symmetric=True, stores_zero_minus_one=True, borrows=True)),
    ],
)
def test_what_gptqmodel_wrote_are_the_weights_that_it_reads(name, format):
    """The file holds 32 output features of a layer that gptqmodel 7.6.0 quantised, and `weight`,
    which its own reader computed from them in fp16."""
    stored = load_file(WRITTEN_BY_GPTQMODEL)
    tensors = {suffix: stored[f"{name}.{suffix}"] for suffix in format.tensors(32, 128)}

    matrix = load_matrix(format, tensors)

    assert torch.equal(widened(matrix).half(), stored[f"{name}.weight"])


@pytest.mark.parametrize(
    ("suffix", "value", "reason"),
    [
        ("scales", float("nan"), "not a number"),
        ("scales", float("inf"), "infinite"),
        ("g_idx", 3, "0 to 2"),
        ("g_idx", -1, "0 to 2"),
        ("qzeros", -1, "a zero point is 0"),
    ],
)
def test_numbers_that_no_weight_has_are_refused_by_tensor(suffix, value, reason):
    tensors = pack_gptq(random_grid(64, 96, 32, lowest_zero=1), 4, version=1)
    tensors[suffix].view(-1)[5] = value

    with pytest.raises(BadTensorError, match=reason) as caught:
        load_matrix(gptq(stores_zero_minus_one=True), tensors)

    assert caught.value.suffix == suffix
