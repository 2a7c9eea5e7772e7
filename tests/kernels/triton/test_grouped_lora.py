"""Low-rank adapters in Triton, interpreted."""

from __future__ import annotations

import pytest
import torch

from tests.kernels.triton.numbers import DTYPES, assert_near, randn
from tgi_cli.kernels import grouped_lora
from tgi_cli.kernels.grouped_lora import reference

WIDTHS = (136, 24, 24)  # q, k and v: of two tiles of columns, and of a part of one


def adapters(num_in, widths, dtype):
    """Return adapters of ranks 8, 24 and 128, of which the second lacks the second output."""
    made = [
        [
            (
                randn(rank, num_in, dtype=dtype, scale=num_in**-0.5, seed=rank),
                randn(width, rank, dtype=dtype, scale=rank**-0.5, seed=rank),
            )
            for width in widths
        ]
        for rank in (8, 24, 128)
    ]
    if len(widths) > 1:
        made[1][1] = None
    return made


def packed(of, num_in, widths, dtype):
    return grouped_lora.pack(of, widths, num_in, device="cpu", dtype=dtype)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("num_in", "widths"), [(72, WIDTHS), (1664, (40,))])
def test_each_row_gets_what_its_adapter_makes_of_it(num_in, widths, dtype):
    # Of one adapter more rows than a tile has, of one a single row, of one none.
    of_rows = torch.tensor([2, -1, 0, 2, *[2] * 17, -1, 2], dtype=torch.int32)
    x, y = randn(23, num_in, dtype=dtype), randn(23, sum(widths), dtype=dtype)
    several, before = adapters(num_in, widths, dtype), y.clone()

    grouped_lora.add_lora(x, packed(several, num_in, widths, dtype), of_rows, y)

    expected = before.double()
    reference.add_lora(x.double(), several, widths, of_rows, expected)
    assert_near(y, expected)
    without = of_rows < 0
    assert torch.equal(y[without], before[without])


def test_an_output_without_a_pair_stays_as_it_was():
    several = adapters(72, WIDTHS, torch.float16)
    x, y = randn(3, 72, dtype=torch.float16), randn(3, 184, dtype=torch.float16)
    before = y.clone()

    of_rows = torch.tensor([1, 1, 1], dtype=torch.int32)
    grouped_lora.add_lora(x, packed(several, 72, WIDTHS, torch.float16), of_rows, y)

    assert torch.equal(y[:, 136:160], before[:, 136:160])
    assert not torch.equal(y[:, :136], before[:, :136])


def test_sums_go_to_fp32_rows_that_are_apart():
    several = adapters(72, (40,), torch.bfloat16)
    x, room = randn(5, 80, dtype=torch.bfloat16)[:, 8:], torch.zeros(5, 50)
    of_rows = torch.tensor([0, 1, 2, 1, 0], dtype=torch.int32)

    grouped_lora.add_lora(x, packed(several, 72, (40,), torch.bfloat16), of_rows, room[:, :40])

    expected = torch.zeros(5, 40, dtype=torch.float64)
    reference.add_lora(x.double(), several, (40,), of_rows, expected)
    assert_near(room[:, :40].bfloat16(), expected)
    assert not room[:, 40:].any()


def test_a_row_has_the_same_bits_in_every_company():
    several = packed(adapters(1664, (40,), torch.float16), 1664, (40,), torch.float16)
    x, y = randn(40, 1664, dtype=torch.float16), randn(40, 40)
    of_rows = torch.arange(40, dtype=torch.int32) % 4 - 1

    def added(rows):
        out = y[rows].clone()
        grouped_lora.add_lora(x[rows], several, of_rows[rows], out)
        return out

    together = added(slice(0, 40))

    for rows in (slice(39, 40), slice(6, 11), torch.arange(39, 0, -3)):
        assert torch.equal(added(rows), together[rows]), rows


def test_only_adapters_of_the_batch_are_read(traffic):
    several = packed(adapters(1024, (256,), torch.float16), 1024, (256,), torch.float16)
    x, y = randn(1, 1024, dtype=torch.float16), torch.zeros(1, 256, dtype=torch.float16)

    grouped_lora.add_lora(x, several, torch.tensor([2], dtype=torch.int32), y)

    assert traffic.total < 1.1 * 2 * 128 * (1024 + 256)


def test_no_rows_are_left_alone():
    several = packed(adapters(72, (40,), torch.float16), 72, (40,), torch.float16)

    empty = torch.empty(0, dtype=torch.int32)
    grouped_lora.add_lora(randn(0, 72).half(), several, empty, torch.empty(0, 40))
