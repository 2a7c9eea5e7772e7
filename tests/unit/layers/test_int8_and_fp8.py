"""int8 and fp8 weights: read and made as their formulas say, written out here number by number."""

from __future__ import annotations

import itertools
from fractions import Fraction

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from tgi_cli.kernels import linear
from tgi_cli.kernels.linear import Codes
from tgi_cli.runtime.config.quantization import Fp8, IntQuantized, OnLoad
from tgi_cli.runtime.config.quantization.on_load import Method
from tgi_cli.runtime.layers.quantization import BadTensorError, load_matrix


def randn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def made(method: Method, weight: Tensor) -> Codes:
    matrix = load_matrix(OnLoad(method=method), {"weight": weight})
    assert isinstance(matrix, Codes)
    return matrix


def fp8_codes(*shape: int) -> Tensor:
    count = torch.Size(shape).numel()
    finite = [code for code in range(256) if code & 0x7F != 0x7F]
    codes = list(itertools.islice(itertools.cycle(finite), count))
    return torch.tensor(codes, dtype=torch.uint8).view(shape).view(torch.float8_e4m3fn)


def e4m3(code: int) -> Fraction:
    """Return what a code stands for."""
    sign, exponent, fraction = -1 if code & 0x80 else 1, code >> 3 & 15, code & 7
    if exponent == 0:
        return sign * Fraction(fraction, 8) * Fraction(1, 64)
    return sign * (1 + Fraction(fraction, 8)) * Fraction(2) ** (exponent - 7)


def test_eetq_takes_the_largest_of_a_row_as_127_and_rounds_half_to_even():
    weight = torch.tensor([[127.0, 0.5, 1.5, 2.5, -2.5, -126.5], [0, 0, 0, 0, 0, 0]])

    matrix = made("eetq", weight)

    assert matrix.codes.tolist() == [[127, 0, 2, 2, -2, -126], [0] * 6]
    assert matrix.scales.tolist() == [[1.0], [0.0]]


@given(num_out=st.integers(1, 9), num_in=st.integers(1, 70), exponent=st.integers(-44, 37))
@settings(deadline=None, max_examples=60)
@pytest.mark.parametrize("method", ["eetq", "bitsandbytes"])
def test_int8_is_within_half_a_step(method, num_out, num_in, exponent):
    weight = randn(num_out, num_in, seed=num_in) * 10.0**exponent

    matrix = made(method, weight)

    largest = weight.abs().amax(1, keepdim=True)
    steps = (matrix.dequantize() - weight).abs() / largest * 127
    if float(largest.min()) / 127 >= torch.finfo(torch.float32).tiny:  # else a step has few digits
        assert float(steps.max()) <= 0.501
    assert bool(matrix.dequantize().isfinite().all())


@given(num_out=st.integers(1, 9), num_in=st.integers(1, 70), seed=st.integers(0, 99))
@settings(deadline=None, max_examples=40)
def test_fp8_takes_the_nearest_number_of_a_row_whose_largest_is_448(num_out, num_in, seed):
    weight = randn(num_out, num_in, seed=seed)

    matrix = made("fp8", weight)

    largest = weight.abs().amax(1, keepdim=True)
    assert torch.equal(matrix.scales, largest / 448)
    numbers = torch.tensor([float(e4m3(code)) for code in range(127)])
    numbers = torch.cat((numbers, -numbers))
    scaled = (weight / matrix.scales)[..., None].double()
    nearest = (scaled - numbers).abs().amin(-1)
    assert bool(((matrix.values - scaled[..., 0]).abs() <= nearest + 1e-4).all())


@pytest.mark.parametrize("scale_shape", [(), (1,), (1, 1), (5,), (5, 1), (3, 4)])
def test_fp8_is_read_with_scales_of_any_extent(scale_shape):
    codes, scales = fp8_codes(5, 53), torch.rand(scale_shape) + 0.5
    is_block = scale_shape == (3, 4)
    format = Fp8(scales_of="block", block=(2, 16)) if is_block else Fp8(scales_of="tensor")

    matrix = load_matrix(format, {"weight": codes, "weight_scale": scales})

    whole = scales if is_block else scales.reshape(-1, 1).expand(5 if scales.numel() > 1 else 1, 1)
    for (n, row), k in itertools.product(enumerate(codes.view(torch.uint8).tolist()), range(53)):
        scale = whole[n // 2, k // 16] if is_block else whole[n % len(whole), 0]
        exact = e4m3(row[k]) * Fraction(float(scale))
        assert float(matrix.dequantize()[n, k]) == float(torch.tensor(float(exact)))


def test_an_fp8_scale_may_be_large():
    tensors = {"weight": fp8_codes(3, 8), "weight_scale": torch.tensor([3e30])}
    matrix, x = load_matrix(Fp8(scales_of="tensor"), tensors), randn(2, 8)

    y = linear.linear(x, linear.pack(matrix))

    expected = x @ (fp8_codes(3, 8).float() * 3e30).T
    torch.testing.assert_close(y, expected, rtol=1e-5, atol=1e27)


@pytest.mark.parametrize("group_size", [None, 16])
def test_int_quantized_is_read(group_size):
    codes = torch.arange(-48, 48, dtype=torch.int8).view(3, 32)
    scales = (torch.rand(3, 32 // (group_size or 32)) + 0.5).bfloat16()

    matrix = load_matrix(
        IntQuantized(group_size=group_size), {"weight": codes, "weight_scale": scales}
    )

    whole = scales.float().repeat_interleave(group_size or 32, 1)
    assert torch.equal(matrix.dequantize(), codes.float() * whole)


@given(lowest=st.integers(-128, 127), seed=st.integers(0, 99), has_one=st.booleans())
@settings(deadline=None, max_examples=30)
def test_int_quantized_zero_points_are_subtracted(lowest, seed, has_one):
    generator = torch.Generator().manual_seed(seed)
    codes = torch.randint(lowest, 128, (3, 32), generator=generator, dtype=torch.int8)
    shape = (1,) if has_one else (3, 2)
    zeros = torch.randint(-128, 128, shape, generator=generator, dtype=torch.int8)
    scales = (torch.rand(shape, generator=generator) + 0.5).bfloat16()
    format = IntQuantized(
        group_size=None if has_one else 16, is_symmetric=False, has_one_scale=has_one
    )

    matrix = load_matrix(
        format, {"weight": codes, "weight_scale": scales, "weight_zero_point": zeros}
    )

    assert isinstance(matrix, Codes)
    whole, shift = (
        each.float() if has_one else each.float().repeat_interleave(16, 1)
        for each in (scales, zeros)
    )
    assert torch.equal(matrix.dequantize(), (codes.float() - shift) * whole)


@pytest.mark.parametrize("method", ["eetq", "fp8"])
def test_the_kernels_multiply_what_was_made(method):
    matrix, x = made(method, randn(45, 67)), randn(33, 67, seed=5)

    y = linear.linear(x, linear.pack(matrix))

    torch.testing.assert_close(y, x @ matrix.dequantize().T, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("method", OnLoad.methods)
@pytest.mark.parametrize("bad", [torch.nan, torch.inf])
def test_weights_that_are_no_numbers_are_refused(method, bad):
    weight = randn(4, 64)
    weight[2, 3] = bad

    with pytest.raises(BadTensorError, match="infinite or not a number") as caught:
        load_matrix(OnLoad(method=method), {"weight": weight})

    assert caught.value.suffix == "weight"


@pytest.mark.parametrize(
    ("format", "changes", "suffix"),
    [
        (Fp8(scales_of="tensor"), {"weight_scale": torch.tensor([torch.nan])}, "weight_scale"),
        (Fp8(scales_of="channel"), {"weight_scale": torch.full((3, 1), torch.inf)}, "weight_scale"),
        (Fp8(scales_of="tensor"), {"weight": torch.full((3, 8), torch.nan)}, "weight"),
        (IntQuantized(group_size=None), {"weight_scale": torch.full((3, 1), torch.nan)},
         "weight_scale"),
    ],
)  # fmt: skip
def test_tensors_that_are_no_numbers_are_refused_by_name(format, changes, suffix):
    tensors = {"weight": torch.zeros(3, 8), "weight_scale": torch.ones(3, 1)} | changes
    kind = torch.int8 if isinstance(format, IntQuantized) else torch.float8_e4m3fn

    with pytest.raises(BadTensorError) as caught:
        load_matrix(format, {**tensors, "weight": tensors["weight"].to(kind)})

    assert caught.value.suffix == suffix
