from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from tgi_cli.runtime.quantize.gptq import Gptq, factorize
from tgi_cli.runtime.quantize.grid import Grid, QuantizedLinear, round_to_grid

SEEDS = st.integers(0, 10_000)
GRIDS = st.builds(
    Grid,
    bits=st.sampled_from([3, 4]),
    group_size=st.sampled_from([-1, 20]),
    symmetric=st.booleans(),
)
few = settings(max_examples=8, deadline=None)


def problem(seed: int, num_out: int = 7, num_in: int = 140) -> tuple[Tensor, Tensor]:
    """A weight, and the Gram matrix of correlated inputs of very different sizes."""
    generator = torch.Generator().manual_seed(seed)
    mixed = torch.randn(num_in, num_in, generator=generator) / num_in**0.5 + torch.eye(num_in)
    sizes = torch.randn(num_in, generator=generator).exp()
    inputs = torch.randn(3 * num_in, num_in, generator=generator) @ mixed * sizes
    weight = torch.randn(num_out, num_in, generator=generator)
    return weight, inputs.T @ inputs / len(inputs)


def loss(linear: QuantizedLinear, weight: Tensor, gram: Tensor) -> float:
    error = weight - linear.dequantize()
    return float((error @ gram).mul_(error).sum())


@few
@given(seed=SEEDS, grid=GRIDS, true_order=st.booleans())
def test_gptq_loses_less_than_plain_rounding(seed: int, grid: Grid, true_order: bool) -> None:
    weight, gram = problem(seed)

    linear, _ = Gptq(0.01, true_order=true_order).round(weight, gram, grid)

    assert loss(linear, weight, gram) < loss(round_to_grid(weight, grid), weight, gram)
    assert linear.codes.max() <= grid.max_code
    assert linear.zeros.min() >= 1


@few
@given(seed=SEEDS, grid=GRIDS)
def test_rows_do_not_know_of_each_other(seed: int, grid: Grid) -> None:
    weight, gram = problem(seed)
    order = torch.randperm(len(weight), generator=torch.Generator().manual_seed(seed))

    whole, _ = Gptq().round(weight, gram, grid)
    mixed, _ = Gptq().round(weight[order], gram, grid)

    torch.testing.assert_close(mixed.dequantize(), whole.dequantize()[order])


@few
@given(seed=SEEDS)
def test_columns_may_come_in_any_order_within_their_group(seed: int) -> None:
    weight, gram = problem(seed)
    grid = Grid(4, 20, symmetric=False)
    generator = torch.Generator().manual_seed(seed)
    order = torch.cat([20 * g + torch.randperm(20, generator=generator) for g in range(7)])

    whole, _ = Gptq().round(weight, gram, grid)
    mixed, _ = Gptq().round(weight[:, order], gram[order][:, order], grid)

    same = (mixed.codes == whole.codes[:, order]).float().mean()
    assert same > 0.98  # sums in another order may tip a code that is halfway


def test_the_same_problem_gives_the_same_bits() -> None:
    weight, gram = problem(3)

    first, _ = Gptq().round(weight.clone(), gram.clone(), Grid(4, 20, symmetric=False))
    second, _ = Gptq().round(weight, gram, Grid(4, 20, symmetric=False))

    assert torch.equal(first.codes, second.codes)
    assert torch.equal(first.scales, second.scales)


def test_the_true_order_says_which_group_each_column_is_in() -> None:
    weight, gram = problem(4)

    linear, _ = Gptq(true_order=True).round(weight, gram, Grid(4, 20, symmetric=True))

    assert linear.group_index is not None
    assert linear.group_index.bincount().tolist() == [20] * 7
    most_active = gram.diagonal().argsort(descending=True)[:20]
    assert linear.group_index[most_active].tolist() == [0] * 20


@pytest.mark.parametrize("num_tokens", [0, 1, 5])
def test_damping_is_doubled_until_there_is_a_factor(num_tokens: int) -> None:
    inputs = torch.randn(num_tokens, 33, generator=torch.Generator().manual_seed(0))
    gram = inputs.T @ inputs

    factor = factorize(gram, 1e-12)

    assert factor.damping > 1e-12
    assert factor.upper.isfinite().all()


def test_features_that_are_always_zero_are_rounded_like_all_others() -> None:
    weight, gram = problem(5)
    gram[:, 7] = gram[7] = 0

    linear, _ = Gptq().round(weight, gram, Grid(4, 20, symmetric=False))

    assert (linear.dequantize()[:, 7] - weight[:, 7]).abs().max() < 0.6


@few
@given(seed=SEEDS)
def test_the_cost_of_an_error_is_what_is_left_once_later_columns_made_up_for_it(seed: int) -> None:
    _, gram = problem(seed, num_in=40)
    order = gram.diagonal().argsort(descending=True)
    damped_gram = gram + 1e-3 * gram.diagonal().mean() * torch.eye(40)
    column = int(order[11])
    later = order[12:]
    error = torch.zeros(3, 40)
    error[1, column] = 0.7

    cost = Gptq(1e-3).cost(gram)(error.clone())

    # The Schur complement: the least of e H e over what the later columns may do.
    inner = damped_gram[later][:, later]
    made_up = damped_gram[column, later] @ torch.linalg.solve(inner, damped_gram[later, column])
    assert cost == pytest.approx(0.49 * float(damped_gram[column, column] - made_up), rel=0.02)
