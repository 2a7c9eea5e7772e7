from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tgi_cli.errors import ArgumentError
from tgi_cli.runtime.quantize.grid import Grid, QuantizedLinear, round_to_grid

GRIDS = st.builds(
    Grid,
    bits=st.sampled_from([2, 3, 4, 8]),
    group_size=st.sampled_from([-1, 1, 7, 21]),
    symmetric=st.booleans(),
)


def random_weight(seed: int, num_out: int = 5, num_in: int = 42) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    weight = torch.randn(num_out, num_in, generator=generator)
    return weight * 10.0 ** torch.randint(-6, 3, (num_out, 1), generator=generator)


@given(grid=GRIDS, seed=st.integers(0, 1000))
def test_codes_and_zeros_fit_their_bits_and_every_packing(grid: Grid, seed: int) -> None:
    linear = round_to_grid(random_weight(seed), grid)

    assert linear.codes.max() <= grid.max_code
    assert linear.zeros.min() >= 1
    assert linear.zeros.max() <= grid.max_code
    assert linear.scales.dtype == torch.float16
    assert torch.isfinite(linear.scales).all()
    assert (linear.scales > 0).all()


@given(grid=GRIDS, seed=st.integers(0, 1000))
def test_dequantizing_is_exact(grid: Grid, seed: int) -> None:
    linear = round_to_grid(random_weight(seed), grid)

    weight = linear.dequantize()

    width = grid.width(42)
    scales = linear.scales.double().repeat_interleave(width, 1)
    zeros = linear.zeros.double().repeat_interleave(width, 1)
    assert torch.equal(weight.double(), (linear.codes.double() - zeros) * scales)


@given(seed=st.integers(0, 1000))
def test_a_weight_on_the_grid_is_given_back_to_the_bit(seed: int) -> None:
    linear = round_to_grid(random_weight(seed), Grid(4, 7, symmetric=False))
    # The rounded weight spans the same grid only if both ends of it are in use.
    linear.codes[:, 0::7], linear.codes[:, 1::7] = 0, 15

    again = round_to_grid(linear.dequantize(), Grid(4, 7, symmetric=False))

    assert torch.equal(again.dequantize(), linear.dequantize())


def test_rounding_is_to_even() -> None:
    grid = Grid(4, -1, symmetric=True)
    scales = torch.ones(1, 4, dtype=torch.float16)
    zeros = torch.full((1, 4), 8, dtype=torch.uint8)

    codes = grid.round(torch.tensor([[0.5, 1.5, -0.5, 99.0]]), scales, zeros)

    assert codes.tolist() == [[8, 10, 8, 15]]


def test_a_group_index_says_where_each_feature_takes_its_scale_from() -> None:
    linear = QuantizedLinear(
        codes=torch.tensor([[9, 10, 11, 12]], dtype=torch.uint8),
        scales=torch.tensor([[0.5, 4.0]], dtype=torch.float16),
        zeros=torch.tensor([[8, 9]], dtype=torch.uint8),
        bits=4,
        group_index=torch.tensor([1, 0, 1, 0], dtype=torch.int32),
    )

    assert linear.dequantize().tolist() == [[0.0, 1.0, 8.0, 2.0]]


@pytest.mark.parametrize(
    ("group_size", "widths", "fix"),
    [
        (128, {"q": 576}, "--group-size 64"),
        (128, {"q": 576, "down": 96}, "--group-size 32"),
        (100, {"q": 512}, "--group-size 128"),
        (64, {"q": 100}, "--group-size -1"),
    ],
)
def test_a_group_size_that_does_not_divide_is_refused_with_the_fix(
    group_size: int, widths: dict[str, int], fix: str
) -> None:
    with pytest.raises(ArgumentError) as caught:
        Grid(4, group_size, symmetric=True).check(widths)

    assert caught.value.hint is not None
    assert fix in caught.value.hint
    assert "q" in caught.value.message


@pytest.mark.parametrize(("bits", "group_size"), [(1, 64), (9, 64), (4, 0), (4, -2)])
def test_a_grid_that_cannot_be_is_refused(bits: int, group_size: int) -> None:
    with pytest.raises(ArgumentError):
        Grid(bits, group_size, symmetric=True).check({"q": 128})


def test_one_group_over_all_features_fits_any_width() -> None:
    Grid(8, -1, symmetric=True).check({"q": 577})

    assert Grid(8, -1, symmetric=True).width(577) == 577


def test_a_group_without_negative_weights_keeps_its_largest() -> None:
    weight = torch.linspace(0, 14, 15)[None]

    linear = round_to_grid(weight, Grid(4, -1, symmetric=False))

    assert linear.zeros.tolist() == [[1]]
    assert torch.equal(linear.dequantize(), weight)
