"""RMS normalisation in Triton, interpreted."""

from __future__ import annotations

import pytest
import torch

from tests.kernels.triton.numbers import DTYPES, assert_near, nans, randn
from tgi_cli.kernels.rms_norm import kernel, reference

SIZES = [(1, 64), (3, 577), (5, 2880)]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("num_rows", "hidden"), SIZES)
def test_rms_norm_matches_reference(num_rows, hidden, dtype):
    x, weight = randn(num_rows, hidden, dtype=dtype, scale=30), randn(hidden)
    out = nans(num_rows, hidden, dtype=dtype)

    y = kernel.rms_norm(x, weight, 1e-5, out=out)

    assert_near(y, reference.rms_norm(x.double(), weight.double(), 1e-5))


@pytest.mark.parametrize("dtype", DTYPES)
def test_the_sum_is_kept_in_the_residual_and_normalised(dtype):
    x, residual, weight = randn(3, 577, dtype=dtype), randn(3, 577, seed=1), randn(577)
    expected_residual = residual.double()
    expected = reference.add_rms_norm(x.double(), expected_residual, weight.double(), 1e-5)

    y = kernel.rms_norm(x, weight, 1e-5, residual=residual, out=nans(3, 577, dtype=dtype))

    assert_near(y, expected)
    assert_near(residual, expected_residual)


def test_rows_that_are_apart_are_read_where_they_are():
    qkv, weight = randn(5, 3, 64, dtype=torch.float16), randn(64)
    heads = qkv.view(5, 192)[:, 64:128]

    y = kernel.rms_norm(heads, weight, 1e-5, out=nans(5, 64, dtype=torch.float16))

    assert_near(y, reference.rms_norm(heads.double(), weight.double(), 1e-5))


def test_a_row_has_the_same_bits_alone_and_among_others():
    x, weight = randn(7, 577, dtype=torch.float16), randn(577)
    together = kernel.rms_norm(x, weight, 1e-5, out=torch.empty_like(x))

    alone = kernel.rms_norm(x[4:5], weight, 1e-5, out=torch.empty_like(x[:1]))

    assert torch.equal(alone[0], together[4])


def test_each_byte_moves_once(traffic):
    x, residual, weight = randn(64, 512, dtype=torch.float16), randn(64, 512), randn(512)

    kernel.rms_norm(x, weight, 1e-5, residual=residual, out=torch.empty_like(x))

    assert traffic.total == 64 * 512 * (2 + 4 + 4 + 2) + 64 * 512 * 4  # and the weight from cache
