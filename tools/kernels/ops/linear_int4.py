"""Products with four-bit codes in groups of 128, as AWQ and GPTQ have them."""

from __future__ import annotations

from dataclasses import replace

import torch

from tgi_cli.kernels import linear_int4
from tgi_cli.kernels.linear import Codes
from tgi_cli.kernels.linear_int4 import reference
from tgi_cli.kernels.linear_int4.tuned import TUNED
from tools.kernels.products import products
from tools.kernels.workload import Call, randn

_GROUP = 128


def _make(num_rows: int, num_out: int, num_in: int, device: str) -> Call:
    x = randn(num_rows, num_in, dtype=torch.bfloat16, device=device)
    weight = random_codes(num_out, num_in, device)
    packed = linear_int4.pack(weight, device=device)
    return Call(
        run=lambda: (linear_int4.linear_int4(x, packed),),
        expect=lambda: (reference.linear_int4(x.float(), weight, None),),
    )


def random_codes(num_out: int, num_in: int, device: str) -> Codes:
    """Return codes whose weights are normal numbers of 1 / sqrt(K) or so."""
    if device == "meta":
        codes = torch.empty(num_out, num_in, dtype=torch.uint8, device=device)
    else:
        generator = torch.Generator().manual_seed(num_out + num_in)
        codes = torch.randint(16, (num_out, num_in), generator=generator, dtype=torch.uint8)
        codes = codes.to(device)
    shape = (num_out, -(-num_in // _GROUP))
    # Rows are about alike: an error is measured by the mean of all.
    scales = 0.2 * num_in**-0.5 * (1 + randn(*shape, device=device, scale=0.1).clamp(-0.4, 0.4))
    return Codes(codes, scales.half(), -8 * scales.half(), _GROUP)


_FEW = ("1 x", "16 x")  # rows
# With few rows a thread makes 256 weights in a turn; an H100 has time for 4.4 instructions each.
_MAX_INSTRUCTIONS = 1050

_PRODUCTS = products(
    "linear_int4",
    _make,
    TUNED,
    weight_bits=4 + 32 / _GROUP,
    decode_fraction=0.6,
    decode_reason="4 instructions a weight are nearly all that can be issued meanwhile",
    prefill_fraction=0.5,
    prefill_reason="weights are unpacked again for each 128 rows, between matrix instructions",
)
WORKLOADS = [
    replace(each, max_loop_instructions=_MAX_INSTRUCTIONS) if each.shape.startswith(_FEW) else each
    for each in _PRODUCTS
]
