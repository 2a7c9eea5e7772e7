"""Products with 16-bit weights."""

from __future__ import annotations

from functools import lru_cache

import torch

from tgi_cli.kernels import linear_16bit
from tgi_cli.kernels.linear_16bit import reference
from tgi_cli.kernels.linear_16bit.tuned import TUNED
from tools.kernels.products import products
from tools.kernels.workload import Call, randn


@lru_cache(maxsize=1)  # large weights are made slowly, and workloads come shape by shape
def _weight(num_out: int, num_in: int, device: str) -> torch.Tensor:
    return randn(num_out, num_in, dtype=torch.bfloat16, device=device, scale=num_in**-0.5)


def _make(num_rows: int, num_out: int, num_in: int, device: str) -> Call:
    x = randn(num_rows, num_in, dtype=torch.bfloat16, device=device)
    weight = _weight(num_out, num_in, device)
    packed = linear_16bit.pack(weight, device=device, dtype=torch.bfloat16)
    return Call(
        run=lambda: (linear_16bit.linear_16bit(x, packed),),
        expect=lambda: (reference.linear_16bit(x.float(), weight.float(), None),),
        peers={"torch": lambda: torch.nn.functional.linear(x, weight)},
    )


WORKLOADS = products(
    "linear_16bit",
    _make,
    TUNED,
    weight_bits=16,
    decode_fraction=0.75,
    decode_reason="filling the pipeline; a second kernel where K is cut",
    prefill_fraction=0.6,
    prefill_reason="no TMA, no warp specialisation",
)
