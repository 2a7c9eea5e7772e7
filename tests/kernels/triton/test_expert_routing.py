"""Routing to experts in Triton, interpreted."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.kernels.triton.numbers import DTYPES, nans, randn
from tgi_cli.kernels import expert_routing
from tgi_cli.kernels.expert_routing import kernel, reference


def route(logits, top_k, renormalise):
    weights = nans(len(logits), top_k)
    experts = torch.full((len(logits), top_k), -7, dtype=torch.int32)
    kernel.route(logits, weights, experts, renormalise=renormalise)
    return weights, experts


@pytest.mark.parametrize("renormalise", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, *DTYPES])
@pytest.mark.parametrize(("num_experts", "top_k"), [(1, 1), (8, 2), (61, 6)])
def test_tokens_go_where_the_reference_sends_them(num_experts, top_k, dtype, renormalise):
    logits = randn(5, num_experts + 3, dtype=dtype, scale=3)[:, 3:]

    weights, experts = route(logits, top_k, renormalise)

    expected, expected_experts = reference.route(logits.double(), top_k, renormalise=renormalise)
    assert torch.equal(experts, expected_experts)
    torch.testing.assert_close(weights.double(), expected, rtol=1e-6, atol=0)


def test_of_equal_scores_the_lower_expert_comes_first():
    logits = torch.tensor([[1.0, 2.0, 2.0, 1.0, 2.0]])

    _, experts = route(logits, 4, renormalise=True)

    assert experts.tolist() == [[1, 2, 4, 0]]


@pytest.mark.parametrize("bad", [float("nan"), float("-inf")])
def test_no_logits_send_a_token_to_an_expert_that_is_not_there(bad):
    logits = torch.tensor([[bad] * 5, [0.5, bad, 1.5, bad, bad]])

    weights, experts = route(logits, 3, renormalise=True)

    assert experts.tolist() == [[0, 1, 2], [2, 0, 1]]
    assert bool(weights.isfinite().all())


def test_a_token_has_the_same_weights_alone_and_among_others():
    logits = randn(7, 61)
    together, _ = route(logits, 6, renormalise=True)

    alone, _ = route(logits[4:5], 6, renormalise=True)

    assert torch.equal(alone[0], together[4])


@settings(max_examples=12, deadline=None)
@given(
    experts=st.lists(st.integers(-1, 4), min_size=1, max_size=80),
    rows=st.sampled_from([16, 32]),
)
def test_each_pair_has_one_place_in_a_tile_of_its_expert(experts, rows):
    tiles = expert_routing.sort_by_expert(torch.tensor([experts], dtype=torch.int32), 5, rows)

    expected, of_tiles = reference.sort_by_expert(experts, rows)
    missing = len(tiles.experts) - len(of_tiles)
    assert tiles.experts.tolist() == of_tiles + [-1] * missing
    found = tiles.pairs.view(-1, rows)[: len(of_tiles)].tolist()
    assert found == [each + [len(experts)] * (rows - len(each)) for each in expected]


def test_more_pairs_than_a_turn_are_sorted():
    experts = torch.arange(3001, dtype=torch.int32).view(1, -1) ** 2 % 7

    tiles = expert_routing.sort_by_expert(experts, 9, 64)

    expected, of_tiles = reference.sort_by_expert(experts[0].tolist(), 64)
    assert tiles.experts.tolist()[: len(of_tiles)] == of_tiles
    pairs = tiles.pairs[: 64 * len(of_tiles)]
    assert pairs[pairs < 3001].tolist() == [pair for tile in expected for pair in tile]


def test_no_tokens_make_no_tiles():
    tiles = expert_routing.sort_by_expert(torch.empty(0, 2, dtype=torch.int32), 4, 16)

    assert len(tiles.pairs) == len(tiles.experts) == 0
