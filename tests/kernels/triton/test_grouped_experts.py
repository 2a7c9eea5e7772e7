"""The products of experts in Triton, interpreted."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from tests.kernels.triton.numbers import DTYPES, assert_near, randn
from tests.kernels.triton.test_linear_int4 import random_codes
from tgi_cli.kernels import expert_routing, grouped_experts
from tgi_cli.kernels.grouped_experts import packing, reference
from tgi_cli.kernels.linear_tiles.tiling import Tile, Tiling, cut

NUM_EXPERTS, HIDDEN, WIDTH = 5, 72, 40
LONG = 264  # input features of codes, three blocks


@pytest.fixture(autouse=True)
def small_tiles(monkeypatch):
    """Cut small weights as large ones are: tiles of two heights, and of K in slices.

    Those of a token are programs of their own, those of 100 tokens are added by one.
    """
    tiling = Tiling((Tile(16, 4, 2), Tile(32, 4, 2)), 64, 16, num_programs=16, min_blocks=1)
    tiling_int4 = replace(tiling, tiles=(Tile(16, 4, 2), Tile(128, 8, 2)), num_programs=10)
    monkeypatch.setattr(packing.tuned_16bit, "TUNED", {"sm_80": tiling})
    monkeypatch.setattr(packing.tuned_int4, "TUNED", {"sm_80": tiling_int4})
    for one, num_in in ((tiling, HIDDEN), (replace(tiling_int4, depth=128), LONG)):
        for num_tokens, tile in zip((1, 100), one.tiles, strict=True):
            num_tiles = expert_routing.max_tiles(3 * num_tokens, NUM_EXPERTS, tile.rows)
            of_tile = replace(one, tiles=(tile,))
            work = cut(of_tile, num_tiles * tile.rows, 2 * WIDTH, num_in, num_products=3)
            assert work.num_slices > 1
            assert work.is_split == (num_tokens == 1)


def plain(num_out, num_in, dtype, seed=0):
    return randn(NUM_EXPERTS, num_out, num_in, dtype=dtype, scale=num_in**-0.5, seed=seed)


def codes(num_out, num_in, seed):
    return [random_codes(num_out, num_in, 16, seed=seed + e) for e in range(NUM_EXPERTS)]


def routed(num_tokens, top_k):
    """Return weights and experts, none of which is expert 3."""
    logits = randn(num_tokens, NUM_EXPERTS)
    logits[:, 3] = -1e9
    return expert_routing.route(logits, top_k, renormalise=True)


def on_device(weights):
    return grouped_experts.pack(weights, device="cpu")


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("num_tokens", "top_k"), [(1, 1), (23, 3), (50, 2)])
def test_plain_experts_match_reference(num_tokens, top_k, dtype):
    gate_up, down = plain(2 * WIDTH, HIDDEN, dtype), plain(HIDDEN, WIDTH, dtype, seed=1)
    x, (weights, experts) = randn(num_tokens, HIDDEN, dtype=dtype), routed(num_tokens, top_k)

    y = grouped_experts.grouped_experts(x, on_device(gate_up), on_device(down), weights, experts)

    expected = reference.grouped_experts(
        x.double(), gate_up.double(), down.double(), weights.double(), experts
    )
    assert_near(y, expected, eps=4)  # gates, values and their products are rounded, too


@pytest.mark.parametrize("dtype", DTYPES)
def test_experts_of_four_bits_match_reference(dtype):
    gate_up, down = codes(2 * WIDTH, LONG, seed=0), codes(LONG, WIDTH, seed=9)
    x, (weights, experts) = randn(23, LONG, dtype=dtype, scale=0.01), routed(23, 2)

    y = grouped_experts.grouped_experts(x, on_device(gate_up), on_device(down), weights, experts)

    gate_up, down = (torch.stack([e.dequantize() for e in each]) for each in (gate_up, down))
    expected = reference.grouped_experts(
        x.double(), gate_up.double(), down.double(), weights.double(), experts
    )
    assert_near(y, expected, eps=4)


@pytest.mark.parametrize("kind", ["plain", "codes"])
def test_a_token_has_the_same_bits_whoever_shares_its_experts(kind):
    if kind == "plain":
        gate_up, down = plain(2 * WIDTH, HIDDEN, torch.float16), plain(HIDDEN, WIDTH, torch.float16)
    else:
        gate_up, down = codes(2 * WIDTH, LONG, seed=0), codes(LONG, WIDTH, seed=9)
    gate_up, down = on_device(gate_up), on_device(down)
    num_in = gate_up.num_in
    x, (weights, experts) = randn(100, num_in, dtype=torch.float16, scale=0.01), routed(100, 3)

    def through(rows):
        return grouped_experts.grouped_experts(x[rows], gate_up, down, weights[rows], experts[rows])

    together = through(slice(0, 100))

    for rows in (slice(99, 100), slice(7, 13)):
        assert torch.equal(through(rows), together[rows]), rows
    backwards = grouped_experts.grouped_experts(
        x.flip(0), gate_up, down, weights.flip(0), experts.flip(0)
    )
    assert torch.equal(backwards.flip(0), together)


def test_an_expert_without_tokens_moves_no_bytes(traffic):
    gate_up, down = (
        on_device(plain(*shape, torch.float16)) for shape in ((2 * WIDTH, HIDDEN), (HIDDEN, WIDTH))
    )
    x, (weights, experts) = randn(4, HIDDEN, dtype=torch.float16), routed(4, 1)
    traffic.reset()
    grouped_experts.grouped_experts(x, gate_up, down, weights, torch.full_like(experts, 2))
    one = traffic.total
    traffic.reset()

    grouped_experts.grouped_experts(
        x, gate_up, down, weights, torch.tensor([[0], [0], [0], [4]]).int()
    )

    num_bytes = 2 * HIDDEN * 3 * WIDTH
    assert num_bytes < traffic.total - one < 2 * num_bytes


def test_experts_that_the_kernel_lacks_are_told():
    several = codes(8, 64, seed=0)
    order = torch.arange(64).flip(0)

    assert grouped_experts.why_not(plain(8, 64, torch.float32)) is not None
    assert grouped_experts.why_not([*several, replace(several[0], input_order=order)]) is not None
    assert grouped_experts.why_not([*several, random_codes(8, 64, 32)]) is not None
    assert grouped_experts.why_not(several) is None


def test_no_tokens_make_no_products():
    gate_up, down = plain(2 * WIDTH, HIDDEN, torch.float16), plain(HIDDEN, WIDTH, torch.float16)
    x = randn(0, HIDDEN, dtype=torch.float16)
    none = torch.empty(0, 2), torch.empty(0, 2, dtype=torch.int32)

    assert grouped_experts.grouped_experts(x, on_device(gate_up), on_device(down), *none).shape == (
        0,
        HIDDEN,
    )
