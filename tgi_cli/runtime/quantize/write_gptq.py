"""AutoGPTQ's layout of a quantised projection, version 1.

    qweight  int32 [K * b / 32, N]   codes of neighbouring inputs in a word
    qzeros   int32 [G, N * b / 32]   zero points minus 1
    scales   fp16  [G, N]
    g_idx    int32 [K]               the group of each input: k // group size, unless act-order

with w[n, k] = (q - z[g_idx[k]]) * s[g_idx[k]], K inputs, N outputs, G groups, b bits.

Version 1 stores z - 1, so it has no z = 0: programs that turn other versions into it subtract over
the whole word, where a zero would borrow from its neighbours.
"""

from __future__ import annotations

import torch
from torch import Tensor

from tgi_cli.runtime.quantize.grid import QuantizedLinear
from tgi_cli.runtime.quantize.packing import pack


def pack_gptq(linear: QuantizedLinear) -> dict[str, Tensor]:
    """Return the tensors of a projection by their suffixes."""
    bits = linear.bits
    assert int(linear.zeros.min()) >= 1, "version 1 has no zero point of 0"
    return {
        "qweight": pack(linear.codes.T.contiguous(), bits),
        "qzeros": pack((linear.zeros - 1).contiguous(), bits).T.contiguous(),
        "scales": linear.scales.T.contiguous(),
        "g_idx": _group_index(linear),
    }


def _group_index(linear: QuantizedLinear) -> Tensor:
    if linear.group_index is not None:
        return linear.group_index.to(torch.int32)
    num_inputs, num_groups = linear.codes.shape[1], linear.scales.shape[1]
    return torch.arange(num_inputs, dtype=torch.int32) // (num_inputs // num_groups)
