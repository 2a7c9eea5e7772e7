"""Rows of a plain weight in Triton, interpreted."""

from __future__ import annotations

import pytest
import torch

from tests.kernels.triton.numbers import DTYPES, randn
from tgi_cli.kernels.embedding import kernel


@pytest.mark.parametrize("dtype", [*DTYPES, torch.float32])
@pytest.mark.parametrize("hidden", [1, 577, 2880])
def test_rows_are_the_weights_widened(hidden, dtype):
    weight, ids = randn(13, hidden, dtype=dtype), torch.tensor([12, 0, 7, 7])

    y = kernel.embed(ids, weight)

    assert torch.equal(y, weight[ids].float())


@pytest.mark.parametrize("token_id", [-1, 13, 1 << 40, -(1 << 40)])
def test_an_id_without_a_row_reads_nothing_and_gives_zeros(token_id):
    weight = randn(13, 64, dtype=torch.float16)

    y = kernel.embed(torch.tensor([3, token_id]), weight)

    assert torch.equal(y, torch.stack((weight[3].float(), torch.zeros(64))))


def test_a_weight_of_more_than_two_to_the_31_elements_is_read_where_it_is():
    hidden = 4099
    num_rows = (1 << 31) // hidden + 3
    weight = torch.empty(num_rows, hidden, dtype=torch.float16)  # costs nothing until touched
    weight[-1] = 0.5

    y = kernel.embed(torch.tensor([num_rows - 1]), weight)

    assert torch.equal(y, torch.full((1, hidden), 0.5))
