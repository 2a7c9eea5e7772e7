"""GPTQ: from AutoGPTQ's and gptqmodel's tensors to codes. `config/quantization/gptq.py` has shapes.

qweight holds the codes of one output feature down a column, qzeros the zero points of one group
along a row, both as bit streams. Version 1 stores each zero point less one, and so can't hold 0;
gptqmodel takes the ones from a whole word at once, and adding them back gives 0 too.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from tgi_cli.runtime.config.quantization import Gptq
from tgi_cli.runtime.layers.quantization.bit_stream import WORD_BITS, unpack
from tgi_cli.runtime.layers.quantization.errors import BadTensorError
from tgi_cli.runtime.layers.quantization.grouped_codes import GroupedCodes, check_scales, groups_of

if TYPE_CHECKING:
    from torch import Tensor


def read_gptq(format: Gptq, tensors: Mapping[str, Tensor]) -> GroupedCodes:
    """Return the codes that the tensors of one projection hold."""
    scales = check_scales("scales", tensors["scales"]).T.contiguous()
    return GroupedCodes(
        codes=unpack(tensors["qweight"].T.contiguous(), format.bits),
        zeros=_zeros(format, tensors["qzeros"]).T.contiguous(),
        scales=scales,
        bits=format.bits,
        groups=groups_of("g_idx", tensors.get("g_idx"), scales.shape[1]),
    )


def _zeros(format: Gptq, words: Tensor) -> Tensor:
    """Return the zero points [G, N]."""
    bits = format.bits
    if not format.stores_zero_minus_one:
        return unpack(words, bits).int()
    if format.borrows and WORD_BITS % bits == 0:
        ones = sum(1 << begin for begin in range(0, WORD_BITS, bits))
        return unpack(words + ones, bits).int()
    zeros = unpack(words, bits).int() + 1
    if format.borrows:
        return zeros & (1 << bits) - 1
    if int(zeros.max()) == 1 << bits:
        raise BadTensorError(
            "qzeros",
            "a zero point is 0, which this format can't hold: its neighbours are damaged",
        )
    return zeros
