"""Products with packed weights: right, and the same bits whatever a row's company."""

from __future__ import annotations

import dataclasses
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tgi_cli.kernels import linear, native

FORMATS = ["float32", "float16", "bfloat16", "int8", "int8_half", "int4", "int4_half", "fp8", "nf4"]
needs_native = pytest.mark.skipif(not native.is_available(), reason="no compiler at install")


def randn(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed + sum(shape)))


def weight_of(
    name: str, num_out: int, num_in: int, group_size: int = 16
) -> torch.Tensor | linear.Codes:
    if name.startswith(("float", "bfloat")):
        return randn(num_out, num_in).to(getattr(torch, name))
    generator = torch.Generator().manual_seed(num_out)
    num_groups = -(-num_in // group_size)
    dtype = torch.float16 if name.endswith("half") else torch.float32
    scales = (torch.rand(num_out, num_groups, generator=generator) / 8).to(dtype)
    if name.startswith("int8"):
        codes = torch.randint(-128, 128, (num_out, num_in), generator=generator).to(torch.int8)
        return linear.Codes(codes, scales, None, group_size)
    if name == "fp8":  # subnormals, both zeros, the largest: all codes but the two NaNs
        codes = torch.randint(0, 254, (num_out, num_in), generator=generator)
        codes = (codes + (codes >= 127)).to(torch.uint8)
        return linear.Codes(codes.view(torch.float8_e4m3fn), scales / 64, None, group_size)
    codes = torch.randint(0, 16, (num_out, num_in), generator=generator).to(torch.uint8)
    if name == "nf4":
        return linear.Codes(codes, scales, None, group_size, table=randn(16))
    offsets = randn(num_out, num_groups).to(dtype)
    return linear.Codes(codes, scales, offsets, group_size)


def widened(weight: torch.Tensor | linear.Codes) -> torch.Tensor:
    return weight.dequantize() if isinstance(weight, linear.Codes) else weight.float()


def magnitudes(weight: torch.Tensor | linear.Codes) -> torch.Tensor:
    """What a weight's terms add up to at most: codes are multiplied before offsets are added."""
    if not isinstance(weight, linear.Codes):
        return weight.double().abs()
    offsets = None if weight.offsets is None else weight.offsets.abs()
    table = None if weight.table is None else weight.table.abs()
    codes = weight.codes if weight.codes.dtype == torch.uint8 else weight.codes.float().abs()
    absolute = linear.Codes(codes, weight.scales, offsets, weight.group_size, table=table)
    return absolute.dequantize()


def within_rounding(y: torch.Tensor, x: torch.Tensor, weight: torch.Tensor | linear.Codes) -> bool:
    """Whether `y` is within the bound on a sum in fp32 of these products, in any order."""
    exact = x.double() @ widened(weight).double().T
    bound = (x.abs().double() @ magnitudes(weight).double().T) * (x.shape[1] + 5) * 2**-24
    return bool(((y - exact).abs() <= bound).all())


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("num_rows", [1, 2, 3, 6, 7, 14, 15, 17, 33, 130])
@pytest.mark.parametrize(("num_out", "num_in"), [(1, 1), (67, 33), (192, 577)])
def test_every_format_with_any_number_of_rows(instruction_set, name, num_rows, num_out, num_in):
    weight, x = weight_of(name, num_out, num_in), randn(num_rows, num_in)

    y = linear.linear(x, linear.pack(weight))

    assert within_rounding(y, x, weight)


@pytest.mark.parametrize("name", ["float16", "bfloat16"])
def test_a_narrow_weight_gives_the_bits_of_its_widened_self(instruction_set, name):
    weight, x = weight_of(name, 100, 333), randn(40, 333)

    y = linear.linear(x, linear.pack(weight))

    assert torch.equal(y, linear.linear(x, linear.pack(widened(weight))))


def test_every_fp8_number_comes_out_exactly(instruction_set):
    codes = torch.arange(256, dtype=torch.uint8)
    numbers = codes[codes.bitwise_and(0x7F) != 0x7F][:, None].view(torch.float8_e4m3fn)  # no NaN
    scales = torch.full((254, 1), 0.375)

    y = linear.linear(torch.ones(1, 1), linear.pack(linear.Codes(numbers, scales, None, 1)))

    assert torch.equal(y[0], numbers[:, 0].float() * 0.375)


@pytest.mark.parametrize("other_table", [[0.5] * 16, None])
def test_weights_of_different_tables_are_not_alike(other_table):
    one = weight_of("nf4", 3, 20)
    other = replace(one, table=None if other_table is None else torch.tensor(other_table))

    assert one.is_alike(replace(one, table=one.table.clone()))
    assert not one.is_alike(other)
    assert not other.is_alike(one)


@needs_native
@settings(max_examples=60, deadline=None)
@given(
    name=st.sampled_from(FORMATS),
    num_rows=st.integers(1, 257),
    num_out=st.integers(1, 80),
    num_in=st.integers(1, 600),
    group_size=st.sampled_from([1, 16, 48, 128, 1000]),
    num_threads=st.integers(1, 2),
    data=st.data(),
)
def test_a_rows_bits_depend_on_nothing_else(
    name, num_rows, num_out, num_in, group_size, num_threads, data
):
    packed = linear.pack(weight_of(name, num_out, num_in, group_size))
    x = randn(num_rows, num_in)
    native.set_num_threads(num_threads)
    whole = linear.linear(x, packed)
    begin = data.draw(st.integers(0, num_rows - 1))
    end = data.draw(st.integers(begin + 1, num_rows))
    order = torch.randperm(num_rows, generator=torch.Generator().manual_seed(begin))

    native.set_num_threads(3 - num_threads)
    part = linear.linear(x[begin:end], packed)
    shuffled = linear.linear(x[order], packed)

    native.set_num_threads(2)
    assert torch.equal(part, whole[begin:end])
    assert torch.equal(shuffled, whole[order])


@needs_native
def test_bits_are_the_same_with_avx2_and_avx512():
    results = []
    for best in (1, 2):
        native.choose_instruction_set(best)
        results += [
            linear.linear(randn(19, 577), linear.pack(weight_of(name, 70, 577))) for name in FORMATS
        ]

    half = len(results) // 2
    assert all(torch.equal(a, b) for a, b in zip(results[:half], results[half:], strict=True))


@needs_native
@pytest.mark.parametrize("name", ["int8", "int4", "nf4"])
@pytest.mark.parametrize("group_size", [16, 48, 384, 1000])
def test_groups_that_end_within_a_block_give_one_row_the_same_bits(name, group_size):
    weight, x = weight_of(name, 70, 1500, group_size), randn(300, 1500)
    packed = linear.pack(weight)

    whole = linear.linear(x, packed)

    assert within_rounding(whole, x, weight)
    for num_rows in (1, 2, 5, 9, 27, 29, 130):  # a row, tiles, several, widened, blocks of rows
        assert torch.equal(linear.linear(x[:num_rows], packed), whole[:num_rows]), num_rows


@pytest.mark.parametrize("num_up", [1, 15, 16, 40, 96])
@pytest.mark.parametrize("name", ["float16", "int4"])
def test_a_gated_product_is_silu_of_the_gates_times_the_others(instruction_set, num_up, name):
    weight, x, bias = weight_of(name, 2 * num_up, 50), randn(5, 50), randn(2 * num_up)

    y = linear.linear(x, linear.pack(weight, bias, gated=True))

    gate, up = (x @ widened(weight).T + bias).chunk(2, dim=-1)
    torch.testing.assert_close(y, torch.nn.functional.silu(gate) * up, rtol=1e-4, atol=1e-4)


@needs_native
def test_rows_may_be_apart_and_nothing_outside_is_written():
    x, packed = randn(9, 40)[:, :33], linear.pack(weight_of("float32", 45, 33))
    y = torch.full((11, 50), float("nan"))

    linear.multiply(x, packed, out=y[1:10, :45])

    assert torch.equal(y[1:10, :45], linear.linear(x.contiguous(), packed))
    assert int(torch.isfinite(y).sum()) == 9 * 45


@pytest.mark.parametrize("name", ["int8", "int4"])
def test_columns_may_be_in_an_order_of_their_own(name):
    weight, x = weight_of(name, 45, 67), randn(7, 67)
    assert isinstance(weight, linear.Codes)
    order = torch.randperm(67, generator=torch.Generator().manual_seed(1))
    shuffled = dataclasses.replace(weight, input_order=order)

    y = linear.linear(x, linear.pack(shuffled))

    assert torch.equal(shuffled.dequantize()[:, order], weight.dequantize())
    assert torch.equal(y, linear.linear(x[:, order], linear.pack(weight)))


@needs_native
@pytest.mark.parametrize("num_in", [576, 2048, 8192])
def test_the_error_is_within_twice_that_of_torch(num_in):
    x, weight = randn(16, num_in), randn(256, num_in)
    exact = x.double() @ weight.double().T

    ours = (linear.linear(x, linear.pack(weight)) - exact).square().mean().sqrt()
    theirs = (torch.nn.functional.linear(x, weight) - exact).square().mean().sqrt()

    assert ours <= 2 * theirs
