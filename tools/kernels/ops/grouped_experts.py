"""The experts of Mixtral (8 large ones, 2 for a token) and of Qwen3 (128 small ones, 8)."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor

from tgi_cli.kernels import expert_routing, grouped_experts
from tgi_cli.kernels.grouped_experts import reference
from tgi_cli.kernels.linear import Codes
from tools.kernels.ops.linear_int4 import random_codes
from tools.kernels.roofline import Cost
from tools.kernels.workload import Call, Workload, randn

_GROUP_BYTES = 4 / 128  # of scales and offsets, for a code


def _experts(
    num_experts: int, num_out: int, num_in: int, *, has_codes: bool, device: str
) -> Tensor | list[Codes]:
    """Return weights [E, N, K]: one expert's rows, for each expert from another on."""
    if has_codes:
        one = random_codes(num_out, num_in, device)
        assert one.offsets is not None
        return [
            Codes(
                one.codes.roll(e, 0), one.scales.roll(e, 0), one.offsets.roll(e, 0), one.group_size
            )
            for e in range(num_experts)
        ]
    rows = randn(num_out, num_in, dtype=torch.bfloat16, device=device, scale=num_in**-0.5)
    return torch.stack([rows.roll(e, 0) for e in range(num_experts)])


def _plain(weights: Tensor | list[Codes]) -> Tensor:
    if isinstance(weights, Tensor):
        return weights.float()
    return torch.stack([each.dequantize() for each in weights])


def _workload(
    num_tokens: int, num_experts: int, top_k: int, hidden: int, width: int, *, has_codes: bool
) -> Workload:
    def make(device: str) -> Call:
        x = randn(num_tokens, hidden, dtype=torch.bfloat16, device=device)
        logits = randn(num_tokens, num_experts, device=device)
        weights, experts = expert_routing.route(logits, top_k, renormalise=True)
        weight = partial(_experts, num_experts, has_codes=has_codes, device=device)
        gate_up, down = weight(2 * width, hidden), weight(hidden, width)
        packed_gate_up, packed_down = (
            grouped_experts.pack(each, device=device) for each in (gate_up, down)
        )

        def run() -> tuple[torch.Tensor, ...]:
            return (
                grouped_experts.grouped_experts(x, packed_gate_up, packed_down, weights, experts),
            )

        def expect() -> tuple[torch.Tensor, ...]:
            return (
                reference.grouped_experts(
                    x.float(), _plain(gate_up), _plain(down), weights, experts
                ),
            )

        return Call(run, expect)

    num_pairs = num_tokens * top_k
    # Of experts that tokens are sent to by chance.
    num_used = num_experts * (1 - (1 - top_k / num_experts) ** num_tokens)
    weight_bytes = 0.5 + _GROUP_BYTES if has_codes else 2
    is_large = num_tokens > 1000
    size = f"{num_experts} x {width} x {hidden} {'codes' if has_codes else 'bf16'}"
    return Workload(
        op="grouped_experts",
        shape=f"{num_tokens} to {size}",
        make=make,
        cost=Cost(
            int(num_used * 3 * width * hidden * weight_bytes)
            + num_tokens * hidden * 4  # x and y
            + num_pairs * (width * 8 + hidden * 10),  # products, and their sums in fp32
            num_pairs * 3 * width * hidden * 2,
        ),
        num_programs=max(2 * width // 128, 1) * min(num_pairs, num_experts + num_pairs // 128),
        bytes_in_flight=16 << 10,
        expected_fraction=0.4 if is_large else 0.5,
        reason="tiles that aren't full; five launches",
        uses_mma=True,
        needs_wide_loads=not is_large,
        tolerance=6.0,  # weights, gates, values and products are rounded on the way
        same_code_as=None if is_large else f"4096 to {size}",
    )


_MIXTRAL, _QWEN = (8, 2, 4096, 14336), (128, 8, 2048, 768)
WORKLOADS = [
    _workload(num_tokens, *sizes, has_codes=has_codes)
    for sizes, has_codes in ((_MIXTRAL, False), (_QWEN, False), (_QWEN, True))
    for num_tokens in (16, 4096)
]
