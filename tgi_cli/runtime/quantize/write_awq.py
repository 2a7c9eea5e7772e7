"""AutoAWQ's GEMM layout of a quantised projection, 4 bits.

    qweight  int32 [K, N / 8]   codes of neighbouring outputs in a word
    qzeros   int32 [G, N / 8]   zero points, in the same order
    scales   fp16  [G, N]

with w[n, k] = (q - z[k // g]) * s[k // g], K inputs, N outputs, G = K / g groups of g inputs.
Bits 4 i to 4 i + 3 of a word hold output `_ORDER[i]` of its eight.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from tgi_cli.runtime.quantize.grid import QuantizedLinear
from tgi_cli.runtime.quantize.packing import pack

if TYPE_CHECKING:
    from torch import Tensor

BITS = 4
_ORDER = [0, 2, 4, 6, 1, 3, 5, 7]


def pack_awq(linear: QuantizedLinear) -> dict[str, Tensor]:
    """Return the tensors of a projection by their suffixes."""
    assert linear.group_index is None, "AWQ's groups are neighbours"
    return {
        "qweight": _pack_outputs(linear.codes),
        "qzeros": _pack_outputs(linear.zeros),
        "scales": linear.scales.T.contiguous(),
    }


def _pack_outputs(values: Tensor) -> Tensor:
    """Return words [C, N / 8] of `values` [N, C]."""
    ordered = values.view(-1, len(_ORDER), values.shape[1])[:, _ORDER]
    return pack(ordered.reshape(values.shape), BITS).T.contiguous()
