"""Rows of a packed weight are the very numbers that its product multiplies with."""

from __future__ import annotations

import pytest
import torch

from tests.kernels.test_linear import FORMATS, needs_native, weight_of, widened
from tgi_cli.kernels import linear, native
from tgi_cli.kernels.embedding import embed


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize(("num_rows", "width"), [(1, 1), (67, 33), (192, 577)])
def test_rows_of_every_format_are_the_widened_weights(instruction_set, name, num_rows, width):
    weight = weight_of(name, num_rows, width)
    ids = torch.randint(0, num_rows, (23,), generator=torch.Generator().manual_seed(0))

    rows = embed(ids, linear.pack(weight))

    assert torch.equal(rows, widened(weight)[ids])


def test_special_half_precision_numbers_are_widened_exactly(instruction_set):
    numbers = torch.arange(1 << 16).to(torch.int16).view(torch.float16)
    weight = numbers[~numbers.isnan()].view(-1, 2)

    rows = embed(torch.arange(len(weight)), linear.pack(weight))

    assert torch.equal(rows, weight.float())


@pytest.mark.parametrize("token_id", [-1, 40, 1 << 40])
def test_an_id_without_a_row_is_an_error_and_reads_nothing(token_id):
    packed = linear.pack(weight_of("float16", 40, 8))

    with pytest.raises(IndexError):
        embed(torch.tensor([3, token_id]), packed)


@needs_native
def test_without_the_native_library_rows_are_the_same(monkeypatch):
    weight, ids = weight_of("bfloat16", 50, 20), torch.tensor([0, 49, 7])
    expected = embed(ids, linear.pack(weight))

    monkeypatch.setattr(native, "_is_wanted", False)

    assert torch.equal(embed(ids, linear.pack(weight)), expected)
