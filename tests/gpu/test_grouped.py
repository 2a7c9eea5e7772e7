"""Experts and adapters on a GPU: a token's bits in any company, in production's tiles."""

from __future__ import annotations

import os

import pytest
import torch

from tgi_cli.kernels import expert_routing, grouped_experts, grouped_lora
from tgi_cli.kernels.linear import Codes

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(
        not torch.cuda.is_available() or os.environ.get("TRITON_INTERPRET") == "1",
        reason="no GPU, or Triton interprets (TRITON_INTERPRET=0 ends that)",
    ),
]
DEVICE, MOST_TOKENS, FEW = "cuda", 700, (1, 3, 17, 64, 130)


def experts_of(num_experts: int, num_out: int, num_in: int, *, has_codes: bool, dtype: torch.dtype):
    if not has_codes:
        weights = torch.randn(num_experts, num_out, num_in, device=DEVICE) * num_in**-0.5
        return grouped_experts.pack(weights.to(dtype), device=DEVICE)
    shape, groups = (num_out, num_in), (num_out, -(-num_in // 32))
    return grouped_experts.pack(
        [
            Codes(
                torch.randint(0, 16, shape, device=DEVICE, dtype=torch.uint8),
                torch.rand(groups, device=DEVICE).half() * num_in**-0.5,
                None,
                32,
            )
            for _ in range(num_experts)
        ],
        device=DEVICE,
    )


@pytest.mark.parametrize("has_codes", [False, True])
@pytest.mark.parametrize(
    ("num_experts", "top_k", "hidden", "width"), [(8, 2, 4096, 1792), (60, 4, 2048, 1408)]
)
def test_a_token_has_the_same_bits_whoever_shares_its_experts(
    num_experts, top_k, hidden, width, has_codes
):
    torch.manual_seed(hidden)
    dtype = torch.bfloat16
    gate_up, down = (
        experts_of(num_experts, *shape, has_codes=has_codes, dtype=dtype)
        for shape in ((2 * width, hidden), (hidden, width))
    )
    x = torch.randn(MOST_TOKENS, hidden, device=DEVICE).to(dtype)
    logits = torch.randn(MOST_TOKENS, num_experts, device=DEVICE)

    def through(first: int):
        routed = expert_routing.route(logits[first:], top_k, renormalise=True)
        return grouped_experts.grouped_experts(x[first:], gate_up, down, *routed)

    together = through(0)

    for num_tokens in FEW:
        first = MOST_TOKENS - num_tokens
        assert torch.equal(through(first), together[first:]), num_tokens


@pytest.mark.parametrize("rank", [8, 24, 128])
def test_a_row_has_the_same_bits_among_other_adapters(rank):
    torch.manual_seed(rank)
    widths, num_in, dtype = (4096, 1024, 1024), 4096, torch.bfloat16
    adapters = [
        [
            (torch.randn(rank, num_in) * num_in**-0.5, torch.randn(width, rank) * rank**-0.5)
            for width in widths
        ]
        for _ in range(5)
    ]
    packed = grouped_lora.pack(adapters, widths, num_in, device=DEVICE, dtype=dtype)
    x = torch.randn(MOST_TOKENS, num_in, device=DEVICE).to(dtype)
    y = torch.randn(MOST_TOKENS, sum(widths), device=DEVICE).to(dtype)
    of_rows = torch.randint(-1, 5, (MOST_TOKENS,), device=DEVICE, dtype=torch.int32)

    def added(first: int):
        out = y[first:].clone()
        grouped_lora.add_lora(x[first:], packed, of_rows[first:], out)
        return out

    together = added(0)

    for num_tokens in FEW:
        first = MOST_TOKENS - num_tokens
        assert torch.equal(added(first), together[first:]), num_tokens
