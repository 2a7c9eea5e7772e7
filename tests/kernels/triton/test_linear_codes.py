"""The product with codes of 8 and 4 bits in Triton, interpreted."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from tests.kernels.triton.numbers import DTYPES, assert_near, nans, randn
from tests.kernels.triton.products import NUM_OUT, assert_bits_stay, small_tiling
from tgi_cli.kernels import devices, linear_codes
from tgi_cli.kernels.linear import Codes
from tgi_cli.kernels.linear_codes import PackedCodes, kernel, packing, reference
from tgi_cli.kernels.quantize_fp8 import quantize_fp8

KINDS = ["int8", "e4m3", "table4"]
LONG = 11 * 128 - 60


def codes(kind: str, num_out: int, num_in: int, group_size: int | None = None) -> Codes:
    """Return a weight of every code there is; `group_size` of None: a scale for each row."""
    generator = torch.Generator().manual_seed(num_out + num_in)
    bits = torch.randint(0, 256, (num_out, num_in), generator=generator, dtype=torch.uint8)
    table = None
    if kind == "table4":
        bits, table = bits & 15, randn(16)
    elif kind in ("e4m3", "fp8"):
        bits = torch.where(bits & 127 == 127, 3, bits).view(torch.float8_e4m3fn)  # no NaNs
    else:
        bits = bits.view(torch.int8)
    group_size = group_size or num_in
    scales = torch.rand(num_out, -(-num_in // group_size), generator=generator) + 0.5
    return Codes(bits, scales, None, group_size, table=table)


def pack(weight: Codes, dtype: torch.dtype, bias: torch.Tensor | None = None) -> PackedCodes:
    """Return `weight` for tiles that are small."""
    packed = linear_codes.pack(weight, bias, device="cpu", dtype=dtype)
    return dataclasses.replace(packed, tiling=small_tiling(packed.tiling.depth))


def rounded(weight: Codes, dtype: torch.dtype) -> Codes:
    """Return `weight` with a table as `dtype` has it."""
    table = None if weight.table is None else weight.table.to(dtype).float()
    return dataclasses.replace(weight, table=table)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("kind", KINDS)
# One block and part of one, four and a bit; groups of parts, of blocks and of neither.
@pytest.mark.parametrize(
    ("num_in", "group_size"),
    [(128, None), (515, None), (577, 64), (200, 16), (224, 96), (300, 256)],
)
def test_product_matches_reference(kind, num_in, group_size, dtype):
    weight, bias = codes(kind, 33, num_in, group_size), randn(33)
    x = randn(3, num_in, dtype=dtype)

    y = linear_codes.linear_codes(x, pack(weight, dtype, bias))

    assert_near(y, reference.linear_codes(x.double(), rounded(weight, dtype), bias))


@pytest.mark.parametrize("kind", KINDS)
def test_every_code_is_widened_exactly(kind):
    every = torch.arange(256, dtype=torch.uint8)
    values = {"int8": every.view(torch.int8), "table4": every & 15}.get(kind, every)
    if kind == "e4m3":
        values = torch.where(every & 127 == 127, 0, every).view(torch.float8_e4m3fn)
    table = randn(16).bfloat16().float() if kind == "table4" else None
    weight = Codes(values[:, None], torch.ones(256, 1), None, 1, table=table)

    for dtype in DTYPES:
        x = torch.ones(1, 1, dtype=dtype)
        y = linear_codes.linear_codes(x, pack(weight, dtype), torch.float32)
        expected = weight.values.to(dtype if kind == "table4" else torch.float32)
        assert torch.equal(y[0], expected[:, 0].float())


@pytest.mark.parametrize(("kind", "group_size"), [("int8", None), ("table4", 64), ("e4m3", 128)])
def test_a_row_has_the_same_bits_in_every_company(kind, group_size, monkeypatch):
    monkeypatch.setattr(packing, "_HALF_ROWS", 16)  # tiles of 32 rows are two halves then
    packed = pack(codes(kind, NUM_OUT, LONG, group_size), torch.float16, randn(NUM_OUT))

    def multiply(x):
        out = nans(len(x), NUM_OUT)
        kernel.linear_codes(x, packed, out=out)
        return out

    assert_bits_stay(multiply, randn(161, packed.num_in, dtype=torch.float16), packed.tiling)


@pytest.mark.parametrize("group_size", [None, 128])
def test_on_hopper_fp8_is_multiplied_as_fp8(group_size, monkeypatch):
    monkeypatch.setattr(devices, "target", lambda: "sm_90")
    weight = codes("fp8", 33, 300, group_size)
    x = randn(5, 300, dtype=torch.bfloat16)
    packed = pack(weight, torch.bfloat16)

    y = linear_codes.linear_codes(x, packed)

    assert packed.kind == "fp8"
    assert_near(y, reference.linear_codes_in_fp8(x.double(), weight, None))


def test_on_hopper_a_row_has_the_same_bits_in_every_company(monkeypatch):
    monkeypatch.setattr(devices, "target", lambda: "sm_90")
    packed = pack(codes("fp8", NUM_OUT, LONG, 128), torch.float16)

    def multiply(x):
        return linear_codes.linear_codes(x, packed, torch.float32)

    assert_bits_stay(multiply, randn(161, LONG, dtype=torch.float16), packed.tiling)


@pytest.mark.parametrize(("group_size", "kind"), [(16, "e4m3"), (32, "fp8"), (None, "fp8")])
def test_groups_too_short_for_fp8_instructions_are_widened(group_size, kind, monkeypatch):
    monkeypatch.setattr(devices, "target", lambda: "sm_90")

    packed = linear_codes.pack(codes("fp8", 4, 64, group_size), device="cpu", dtype=torch.float16)

    assert packed.kind == kind


def test_rows_further_apart_than_32_bits_count_are_found():
    packed = pack(codes("int8", 2, 16), torch.float16)
    far = torch.empty(2**31 + 32, dtype=torch.float16)  # takes no memory until it is touched
    x = far.as_strided((2, 16), (2**31 + 8, 1))
    x.copy_(randn(2, 16))
    out = torch.empty(2**31 + 32, dtype=torch.float16).as_strided((2, 2), (2**31 + 8, 1))

    kernel.linear_codes(x, packed, out=out)

    assert torch.equal(out, linear_codes.linear_codes(x.contiguous(), packed))


def test_columns_may_be_in_an_order_of_their_own():
    weight = codes("int8", 33, 128, 32)
    order = torch.randperm(128, generator=torch.Generator().manual_seed(1))
    shuffled = dataclasses.replace(weight, input_order=order)
    x = randn(3, 128, dtype=torch.float16)

    y = linear_codes.linear_codes(x, pack(shuffled, torch.float16))

    assert torch.equal(y, linear_codes.linear_codes(x[:, order], pack(weight, torch.float16)))


@pytest.mark.parametrize(
    ("kind", "bits_per_weight"), [("int8", 8), ("e4m3", 8), ("table4", 4 + 32 / 64)]
)
def test_a_weight_moves_once(kind, bits_per_weight, traffic):
    weight = codes(kind, 64, 1024, 64 if kind == "table4" else None)
    packed = linear_codes.pack(weight, device="cpu", dtype=torch.float16)
    x = randn(2, 1024, dtype=torch.float16)

    linear_codes.linear_codes(x, packed)

    look_ups = 64 * 1024 * 2 if kind == "table4" else 0  # from the first cache
    roof = 64 * 1024 * bits_per_weight / 8 + 2 * 2 * (1024 + 64)
    assert roof <= traffic.total - look_ups <= 1.1 * roof


@pytest.mark.parametrize(
    ("weight", "reason"),
    [
        (codes("int8", 4, 64, 8), "groups of 8 are no multiple of 16"),
        (
            dataclasses.replace(codes("int8", 4, 64), offsets=torch.ones(4, 1)),
            "groups have offsets",
        ),
        (dataclasses.replace(codes("table4", 4, 64), table=None), "codes have no table"),
        (codes("int8", 4, 10), None),
        (codes("table4", 4, 64, 64), None),
    ],
)
def test_a_grid_that_the_kernel_lacks_is_told(weight, reason):
    told = linear_codes.why_not(weight)

    assert told == reason or (reason is not None and told is not None and reason in told)


def test_no_rows_give_none_and_bytes_are_counted():
    packed = linear_codes.pack(codes("int8", 5, 256), device="cpu", dtype=torch.float16)

    y = linear_codes.linear_codes(randn(0, 256, dtype=torch.float16), packed)

    assert y.shape == (0, 5)
    assert packed.num_bytes == 5 * 256 + 5 * 4


@pytest.mark.parametrize("dtype", [*DTYPES, torch.float32])
@pytest.mark.parametrize("num_in", [1, 577, 9000])
def test_rows_in_fp8_match_reference(num_in, dtype):
    x = randn(3, num_in + 3, dtype=dtype, scale=7)[:, 3:]
    x[1] = 0

    found, scales = quantize_fp8(x)

    expected, expected_scales = reference.reference.quantize_fp8(x)
    assert torch.equal(found.view(torch.uint8), expected.view(torch.uint8))
    assert torch.equal(scales, expected_scales)
    assert bool((scales > 0).all())


def test_what_is_not_finite_stays_in_its_row():
    x = randn(3, 40)
    x[1, 7] = float("nan")

    found, scales = quantize_fp8(x)

    assert bool(found[1, 7].float().isnan())
    assert int(found.float().isnan().sum()) == 1
    assert bool(scales.isfinite().all())
