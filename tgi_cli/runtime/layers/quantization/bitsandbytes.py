"""bitsandbytes' int8, nf4 and fp4: as transformers saves them, or made of plain weights.

int8: w[n, k] = q * SCB[n] / 127, with SCB = max|w[n]|.

nf4, fp4: w = table[q] * absmax of its block. Blocks run along the flattened matrix, two codes to a
byte, the first in the high half. With double quantisation absmax = map[a] * nested absmax + offset,
in fp32. Only where blocks end with rows do the kernels have such a grid; else the weights come out
plain. The library rounds each weight to 16 bits before it multiplies; here they stay fp32.

The library's own arithmetic is the reference (bitsandbytes 0.50, `backends/default/ops.py`): codes
and absmax made here equal its own to the bit. QLoRA: Dettmers et al., arXiv:2305.14314.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import msgspec
import torch
from torch import Tensor

from tgi_cli.kernels.linear import Codes
from tgi_cli.runtime.config.quantization import BitsAndBytesInt8, Fp4, Nf4
from tgi_cli.runtime.config.quantization.bitsandbytes import BLOCK_SIZES, NESTED_BLOCK_SIZE
from tgi_cli.runtime.config.quantization.on_load import BLOCK_SIZE
from tgi_cli.runtime.layers.quantization.errors import BadTensorError
from tgi_cli.runtime.layers.quantization.grouped_codes import check_scales
from tgi_cli.runtime.layers.quantization.int8 import LARGEST, finite_rows

# Quantiles of a normal distribution, QLoRA's appendix E.
NF4 = (-1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453, -0.28444138169288635,
       -0.18477343022823334, -0.09105003625154495, 0.0, 0.07958029955625534, 0.16093020141124725,
       0.24611230194568634, 0.33791524171829224, 0.44070982933044434, 0.5626170039176941,
       0.7229568362236023, 1.0)  # fmt: skip
# Sign, two bits of exponent and one of fraction, of which the largest is 12.
_FP4_MAGNITUDES = (0.0, 0.0625, 8.0, 12.0, 4.0, 6.0, 2.0, 3.0)
_SMALLEST_ABSMAX = 1e-38


class _State(msgspec.Struct, frozen=True):
    """What the library writes as JSON; other keys don't matter here."""

    quant_type: Literal["nf4", "fp4"]
    blocksize: int
    shape: tuple[int, int]
    nested_blocksize: int = NESTED_BLOCK_SIZE
    nested_offset: float = 0.0


def table_of(kind: Literal["nf4", "fp4"]) -> Tensor:
    """Return what each of the 16 codes stands for, in fp32."""
    if kind == "nf4":
        return torch.tensor(NF4)
    return torch.tensor([*_FP4_MAGNITUDES, *(-x for x in _FP4_MAGNITUDES)]) / 12.0


def read_int8(format: BitsAndBytesInt8, tensors: Mapping[str, Tensor]) -> Codes:
    """Return a saved int8 weight."""
    codes = tensors["weight"]
    scales = check_scales("SCB", tensors["SCB"]) / LARGEST
    return Codes(codes, scales[:, None], None, codes.shape[1])


def quantize_int8(weight: Tensor) -> Codes:
    """Return `weight` [N, K] in int8 with the library's codes."""
    rows, largest = finite_rows(weight)
    codes = (rows * (LARGEST / largest)).nan_to_num_(0.0).round_().clamp_(-LARGEST, LARGEST)
    return Codes(codes.to(torch.int8), largest / LARGEST, None, rows.shape[1])


def read_4bit(format: Nf4 | Fp4, tensors: Mapping[str, Tensor]) -> Tensor | Codes:
    """Return a saved nf4 or fp4 weight."""
    packed = tensors["weight"].view(torch.uint8).flatten()
    state = _state(format, tensors[format.state_name], len(packed))
    num_codes = state.shape[0] * state.shape[1]
    codes = torch.stack((packed >> 4, packed & 15), dim=1).flatten()[:num_codes]
    absmax = _absmax(format, tensors, state, -(-num_codes // state.blocksize))
    table = check_scales("weight.quant_map", tensors["weight.quant_map"])
    return _matrix(codes.view(state.shape), absmax, table, state.blocksize)


def quantize_4bit(weight: Tensor, kind: Literal["nf4", "fp4"]) -> Tensor | Codes:
    """Return `weight` [N, K] with the library's codes, absmax in fp32."""
    finite_rows(weight)
    flat, table = weight.float().flatten(), table_of(kind)
    whole = flat[: len(flat) // BLOCK_SIZE * BLOCK_SIZE].view(-1, BLOCK_SIZE)
    absmax = whole.abs().amax(dim=1)
    scaled = whole * (1.0 / absmax.clamp(min=_SMALLEST_ABSMAX))[:, None]
    rest = flat[whole.numel() :]
    if len(rest):  # the library divides here and multiplies above
        last = rest.abs().amax().clamp(min=_SMALLEST_ABSMAX)
        absmax = torch.cat((absmax, last[None]))
        scaled = torch.cat((scaled.flatten(), rest / last))
    codes = _nearest(scaled.flatten(), table)
    return _matrix(codes.view(weight.shape), absmax, table, BLOCK_SIZE)


def _nearest(values: Tensor, table: Tensor) -> Tensor:
    """Return the code of the number nearest to each of `values`, of two the lower, in uint8."""
    order = torch.argsort(table, stable=True)
    ascending = table[order]
    ranks = torch.zeros(values.shape, dtype=torch.uint8)
    for middle in ((ascending[:-1] + ascending[1:]) / 2).tolist():
        ranks += values > middle  # many times as fast as torch.bucketize
    is_sorted = torch.equal(order, torch.arange(len(table)))
    return ranks if is_sorted else order.to(torch.uint8)[ranks.int()]


def _matrix(codes: Tensor, absmax: Tensor, table: Tensor, block_size: int) -> Tensor | Codes:
    """Return codes [N, K] whose blocks run along the flattened matrix, on the grid or plain."""
    num_out, num_in = codes.shape
    if num_in % block_size == 0:
        return Codes(codes, absmax.view(num_out, -1), None, block_size, table=table)
    scales = absmax.repeat_interleave(block_size)[: codes.numel()]
    return table[codes.int()] * scales.view(codes.shape)


def _state(format: Nf4 | Fp4, text: Tensor, num_bytes: int) -> _State:
    name = format.state_name
    try:
        state = msgspec.json.decode(bytes(text.tolist()), type=_State)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as exc:
        raise BadTensorError(name, f"it isn't the JSON that it should be ({exc})") from exc
    if f"bitsandbytes-{state.quant_type}" != format.methods[0]:
        raise BadTensorError(name, f"quant_type is {state.quant_type!r}")
    if state.blocksize not in BLOCK_SIZES:
        raise BadTensorError(name, f"blocksize is {state.blocksize}, not one of {BLOCK_SIZES}")
    num_out, num_in = state.shape
    if num_out < 1 or num_in < 1 or -(-num_out * num_in // 2) != num_bytes:
        raise BadTensorError(
            name, f"shape is [{num_out}, {num_in}]; the weight has {num_bytes} bytes"
        )
    if state.nested_blocksize != NESTED_BLOCK_SIZE:
        raise BadTensorError(
            name, f"nested_blocksize is {state.nested_blocksize}, not {NESTED_BLOCK_SIZE}"
        )
    return state


def _absmax(
    format: Nf4 | Fp4, tensors: Mapping[str, Tensor], state: _State, num_blocks: int
) -> Tensor:
    """Return the largest magnitude of each block in fp32."""
    absmax = tensors["weight.absmax"]
    _check_length("weight.absmax", absmax, num_blocks)
    if not format.is_nested:
        return check_scales("weight.absmax", absmax)
    outer = check_scales("weight.nested_absmax", tensors["weight.nested_absmax"])
    _check_length("weight.nested_absmax", outer, -(-num_blocks // NESTED_BLOCK_SIZE))
    table = check_scales("weight.nested_quant_map", tensors["weight.nested_quant_map"])
    scales = outer.repeat_interleave(NESTED_BLOCK_SIZE)[:num_blocks]
    whole = table[absmax.int()] * scales + torch.tensor(state.nested_offset)
    return check_scales("weight.nested_absmax", whole)


def _check_length(suffix: str, tensor: Tensor, expected: int) -> None:
    if len(tensor) != expected:
        raise BadTensorError(suffix, f"it has {len(tensor)} blocks; blocksize makes it {expected}")
