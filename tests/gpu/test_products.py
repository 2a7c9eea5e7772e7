"""Products on a GPU: equal instructions give equal bits, in production's tiles."""

from __future__ import annotations

import os
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from tgi_cli.kernels import linear_16bit, linear_codes, linear_int4
from tgi_cli.kernels.linear import Codes

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(
        not torch.cuda.is_available() or os.environ.get("TRITON_INTERPRET") == "1",
        reason="no GPU, or Triton interprets (TRITON_INTERPRET=0 ends that)",
    ),
]
DEVICE, MOST_ROWS = "cuda", 1000
# Slices and none, blocks that K doesn't fill, columns that no tile fills.
SHAPES = [(4096, 4096), (28672, 4096), (4096, 14336), (1000, 1376), (777, 576)]


def plain(num_out: int, num_in: int, dtype: torch.dtype) -> Callable[[Tensor], Tensor]:
    weight = torch.randn(num_out, num_in, device=DEVICE)
    packed = linear_16bit.pack(weight, device=DEVICE, dtype=dtype)
    return lambda x: linear_16bit.linear_16bit(x, packed, torch.float32)


def codes(num_out: int, num_in: int, kind: torch.dtype, group_size: int) -> Codes:
    whole = torch.randint(0, 16, (num_out, num_in), device=DEVICE)
    scales = torch.rand(num_out, -(-num_in // group_size), device=DEVICE)
    return Codes(whole.to(kind), scales, None, group_size)


def widened(kind: torch.dtype, group_size: int | None = None, *, has_table: bool = False):
    def make(num_out: int, num_in: int, dtype: torch.dtype) -> Callable[[Tensor], Tensor]:
        weight = codes(num_out, num_in, kind, group_size or num_in)
        if has_table:
            weight = Codes(
                weight.codes, weight.scales, None, weight.group_size, table=torch.randn(16)
            )
        packed = linear_codes.pack(weight, device=DEVICE, dtype=dtype)
        return lambda x: linear_codes.linear_codes(x, packed, torch.float32)

    return make


def four_bits(num_out: int, num_in: int, dtype: torch.dtype) -> Callable[[Tensor], Tensor]:
    packed = linear_int4.pack(codes(num_out, num_in, torch.uint8, 32), None, device=DEVICE)
    return lambda x: linear_int4.linear_int4(x, packed, torch.float32)


KINDS = {
    "16 bits": plain,
    "4 bits": four_bits,
    "int8": widened(torch.int8),
    "int8 in groups": widened(torch.int8, 32),
    "fp8": widened(torch.float8_e4m3fn),
    "fp8 in blocks": widened(torch.float8_e4m3fn, 128),
    "nf4": widened(torch.uint8, 64, has_table=True),
}


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize(("num_out", "num_in"), SHAPES)
@pytest.mark.parametrize("kind", KINDS)
def test_a_row_has_the_same_bits_in_every_batch(kind, num_out, num_in, dtype):
    torch.manual_seed(num_out)
    multiply = KINDS[kind](num_out, num_in, dtype)
    x = torch.randn(MOST_ROWS, num_in, device=DEVICE).to(dtype)
    together = multiply(x)

    for num_rows in (1, 3, 16, 17, 33, 64, 65, 130, 300):
        first = MOST_ROWS - num_rows
        assert torch.equal(multiply(x[first:]), together[first:]), num_rows
