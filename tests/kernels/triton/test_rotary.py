"""Rotary position embedding and head norms in Triton, interpreted."""

from __future__ import annotations

import pytest
import torch

from tests.kernels.triton.numbers import DTYPES, assert_near, randn
from tgi_cli.kernels.rms_norm import kernel as norm_kernel
from tgi_cli.kernels.rms_norm import reference as norm_reference
from tgi_cli.kernels.rotary import kernel, reference


def angles(num_tokens: int, head_dim: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return cos and sin, [T, 1, D/2] each, of angles of thousands of radians."""
    x = randn(num_tokens, 1, head_dim // 2, scale=3000.0)
    return x.cos(), x.sin()


def rotate_(x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> None:
    kernel.rotate_(x, torch.cat((cos, cos), -1), torch.cat((-sin, sin), -1))


@pytest.mark.parametrize("dtype", [*DTYPES, torch.float32])
@pytest.mark.parametrize(
    ("num_tokens", "num_heads", "head_dim"), [(1, 1, 4), (3, 12, 80), (2, 8, 128), (2, 17, 12)]
)
def test_heads_turn_as_the_references_and_their_neighbours_stay(
    num_tokens, num_heads, head_dim, dtype
):
    qkv = randn(num_tokens, num_heads + 3, head_dim, dtype=dtype)
    cos, sin = angles(num_tokens, head_dim)
    before = qkv.clone()

    rotate_(qkv[:, 1 : num_heads + 1], cos, sin)

    expected = reference.rotate(before[:, 1:-2].double(), cos.double(), sin.double())
    assert_near(qkv[:, 1:-2], expected)
    assert torch.equal(qkv[:, :1], before[:, :1])
    assert torch.equal(qkv[:, -2:], before[:, -2:])


def test_a_token_turns_to_the_same_bits_alone_and_among_others():
    together, (cos, sin) = randn(5, 9, 64, dtype=torch.float16), angles(5, 64)
    alone = together[3:4].clone()
    rotate_(together, cos, sin)

    rotate_(alone, cos[3:4], sin[3:4])

    assert torch.equal(alone[0], together[3])


def test_turning_moves_each_byte_once_and_a_few_angles(traffic):
    x, (cos, sin) = randn(4, 32, 128, dtype=torch.float16), angles(4, 128)

    rotate_(x, cos, sin)

    assert traffic.total == 2 * x.numel() * 2 + 4 * (32 // 8) * 4 * 128


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    ("num_tokens", "num_q", "num_k", "head_dim"), [(1, 1, 1, 64), (3, 9, 3, 80), (2, 8, 8, 128)]
)
def test_heads_are_normalised_by_their_own_weights(num_tokens, num_q, num_k, head_dim, dtype):
    qkv = randn(num_tokens, num_q + 2 * num_k, head_dim, dtype=dtype, scale=30.0)
    q_weight, k_weight = randn(head_dim, seed=1), randn(head_dim, seed=2)
    before = qkv.clone()

    norm_kernel.norm_heads_(qkv[:, : num_q + num_k], q_weight, k_weight, num_q, 1e-5)

    q, k, v = before.double().split((num_q, num_k, num_k), dim=1)
    assert_near(qkv[:, :num_q], norm_reference.rms_norm(q, q_weight.double(), 1e-5))
    assert_near(qkv[:, num_q : num_q + num_k], norm_reference.rms_norm(k, k_weight.double(), 1e-5))
    assert torch.equal(qkv[:, num_q + num_k :], v.to(dtype))


def test_a_head_is_normalised_to_the_same_bits_alone_and_among_others():
    together, weights = randn(5, 11, 96, dtype=torch.bfloat16), (randn(96), randn(96, seed=1))
    alone = together[3:4, 4:].clone()
    norm_kernel.norm_heads_(together, *weights, 8, 1e-5)

    norm_kernel.norm_heads_(alone, *weights, 4, 1e-5)

    assert torch.equal(alone[0], together[3, 4:])
