"""Operations on rows give the same bits with AVX2 and with AVX-512."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from tests.kernels.test_linear import needs_native, randn, weight_of
from tests.kernels.test_paged_attention import attend_both, fill
from tgi_cli.kernels import best_token, linear, native, rms_norm, rotary
from tgi_cli.kernels.embedding import embed
from tgi_cli.kernels.paged_attention.native import NativeAttention


def gated() -> torch.Tensor:
    weight = weight_of("float16", 150, 300)
    return linear.linear(randn(9, 300), linear.pack(weight, randn(150), gated=True))


def rotated() -> torch.Tensor:
    x, angles = randn(5, 3, 24), randn(5, 1, 12)
    cos, sin = angles.cos(), angles.sin()
    rotary.rotate_(x, torch.cat((cos, cos), -1), torch.cat((-sin, sin), -1))
    return x


def attended() -> torch.Tensor:
    lengths = [(170, 1), (90, 40), (7, 7)]
    return attend_both(
        "native", lengths, head_dim=72, sliding_window=70, soft_cap=3.0, dtype=torch.float16
    )[0]


def stored() -> torch.Tensor:
    keys_values = torch.randn(3, 2, 2, 32, 40, generator=torch.Generator().manual_seed(1)) * 1e-4
    return fill(NativeAttention(), keys_values, torch.float16).blocks


OPERATIONS: dict[str, Callable[[], Any]] = {
    "norm": lambda: rms_norm.rms_norm(randn(3, 577), randn(577), 1e-5),
    "rotation": rotated,
    "gated product": gated,
    "codes with offsets": lambda: linear.linear(
        randn(3, 577), linear.pack(weight_of("int4", 70, 577))
    ),
    "best token": lambda: torch.stack(
        [each.double() for each in best_token.best_token(randn(3, 1001) * 5)]
    ),
    "attention": attended,
    "KV store": stored,
    "embedding": lambda: embed(torch.arange(9), linear.pack(weight_of("int4_half", 40, 100))),
}


@needs_native
@pytest.mark.parametrize("name", OPERATIONS)
def test_bits_are_the_same_with_avx2_and_avx512(name):
    results = []
    for best in (1, 2):
        native.choose_instruction_set(best)
        results.append(OPERATIONS[name]())

    assert torch.equal(*results)
