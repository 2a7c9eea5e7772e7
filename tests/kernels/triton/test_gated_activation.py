"""Gated activations in Triton, interpreted."""

from __future__ import annotations

import pytest
import torch

from tests.kernels.triton.numbers import DTYPES, assert_near, randn
from tgi_cli.kernels import gated_activation as public
from tgi_cli.kernels.gated_activation import kernel, reference

KINDS = ["silu", "gelu", "gelu_tanh"]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("num_rows", "width"), [(1, 1), (3, 577), (2, 2816)])
def test_the_first_half_gates_the_second(num_rows, width, dtype, kind):
    x = randn(num_rows, 2 * width, dtype=dtype, scale=3.0)

    y = kernel.gated_activation(x, kind)

    assert_near(y, reference.gated_activation(x.double(), kind))


@pytest.mark.filterwarnings("ignore:overflow encountered in exp")  # by NumPy: to infinity
@pytest.mark.parametrize("kind", KINDS)
def test_large_gates_open_or_close_and_stay_numbers(kind):
    x = torch.tensor([[3e4, -3e4, 88.0, -88.0, 2.0, 2.0, 2.0, 2.0]])

    y = kernel.gated_activation(x, kind)

    assert torch.allclose(y, torch.tensor([[6e4, 0.0, 176.0, 0.0]]), atol=1e-30)


@pytest.mark.parametrize("kind", KINDS)
def test_on_a_cpu_the_reference_serves_in_fp32(kind):
    x = randn(3, 34, dtype=torch.bfloat16)

    y = public.gated_activation(x, kind)

    assert_near(y, reference.gated_activation(x.double(), kind))


def test_a_row_that_is_apart_has_the_same_bits_alone_and_among_others():
    wide = randn(5, 2000, dtype=torch.float16)
    together = kernel.gated_activation(wide[:, 100:1300], "silu")

    alone = kernel.gated_activation(wide[3:4, 100:1300].contiguous(), "silu")

    assert torch.equal(alone[0], together[3])


def test_each_byte_of_gates_and_values_moves_once(traffic):
    kernel.gated_activation(randn(3, 2 * 2816, dtype=torch.float16), "silu")

    assert traffic.total == 3 * 3 * 2816 * 2
