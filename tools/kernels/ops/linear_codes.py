"""Products with codes: int8 and fp8 with a scale for each row, fp8 in blocks, nf4 in blocks."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache, partial

import torch
from torch import Tensor

from tgi_cli.kernels import devices, linear_codes
from tgi_cli.kernels.linear import Codes
from tgi_cli.kernels.linear_codes import PackedCodes, reference
from tgi_cli.kernels.linear_codes.tuned import BY_ROW, BY_TABLE, IN_FP8
from tools.kernels.products import products
from tools.kernels.workload import Call, randn

_KINDS = ("int8", "fp8", "fp8_blocks", "nf4")


def _codes(num_out: int, num_in: int, kind: torch.dtype, group_size: int, device: str) -> Codes:
    """Return codes of which the table's have one; the numbers don't matter, only where they lie."""
    codes = randn(num_out, num_in, device=device, scale=3.0 if kind == torch.uint8 else 30.0)
    codes = (codes + 8).clamp(0, 15) if kind == torch.uint8 else codes.clamp(-127, 127)
    scales = randn(num_out, num_in // group_size, device=device, scale=0.01).abs() + 0.001
    table = torch.arange(-8, 8, device=device) / 8 if kind == torch.uint8 else None
    return Codes(codes.to(kind), scales, None, group_size, table=table)


@lru_cache(maxsize=len(_KINDS))  # large weights are made slowly, and workloads come shape by shape
def _weight(
    kind: torch.dtype, group_size: int, num_out: int, num_in: int, device: str, target: str
) -> tuple[Codes, PackedCodes, Tensor]:
    """Return a weight, as it is packed for `target`, and one of 16 bits."""
    weight = _codes(num_out, num_in, kind, group_size or num_in, device)
    packed = linear_codes.pack(weight, device=device, dtype=torch.bfloat16)
    return weight, packed, randn(num_out, num_in, dtype=torch.bfloat16, device=device)


def _make(
    kind: torch.dtype, group_size: int, num_rows: int, num_out: int, num_in: int, device: str
) -> Call:
    x = randn(num_rows, num_in, dtype=torch.bfloat16, device=device)
    weight, packed, plain = _weight(kind, group_size, num_out, num_in, device, devices.target())
    expected: Callable[..., Tensor] = reference.linear_codes
    if packed.kind == "fp8":
        expected = reference.linear_codes_in_fp8
    return Call(
        run=lambda: (linear_codes.linear_codes(x, packed),),
        expect=lambda: (expected(x.float(), weight, None),),
        peers={"torch, 16-bit weights": lambda: torch.nn.functional.linear(x, plain)},
    )


WORKLOADS = [
    *products(
        "linear_int8",
        partial(_make, torch.int8, 0),
        BY_ROW,
        has_head=False,
        weight_bits=8,
        decode_fraction=0.65,
        decode_reason="five instructions a weight; a second kernel where K is cut",
        prefill_fraction=0.5,
        prefill_reason="weights are widened for each tile of 128 rows; no TMA",
    ),
    *products(
        "linear_fp8",
        partial(_make, torch.float8_e4m3fn, 0),
        IN_FP8,
        has_head=False,
        weight_bits=8,
        number="fp8",
        decode_fraction=0.6,
        decode_reason="a kernel before it, one after it where K is cut",
        prefill_fraction=0.45,
        prefill_reason="sums leave the tensor cores every 128 of K; no TMA",
    ),
    *products(
        "linear_fp8_blocks",
        partial(_make, torch.float8_e4m3fn, 128),
        IN_FP8,
        has_head=False,
        weight_bits=8.25,
        number="fp8",
        decode_fraction=0.6,
        decode_reason="a kernel before it, one after it where K is cut",
        prefill_fraction=0.4,
        prefill_reason="sums are scaled every 128 of K; no TMA",
    ),
    *products(
        "linear_nf4",
        partial(_make, torch.uint8, 64),
        BY_TABLE,
        has_head=False,
        weight_bits=4.5,
        looks_up=True,
        decode_fraction=0.4,
        decode_reason="nine instructions a weight, of which one is a look-up",
        prefill_fraction=0.3,
        prefill_reason="weights are looked up for each tile of 64 or 128 rows",
    ),
]
