"""Matrix product with a weight that is packed once, at load.

    y = x @ weight.T + bias

x: [T, K] fp32; weight: [N, K] fp32, fp16, bf16, or codes on a grid (`Codes`); bias: [N];
y: [T, N] fp32. Weights stay in their type in memory and are widened, exactly, in registers; sums
are fp32; those of codes are scaled once a group (docs/adr/0010). Memory bound up to about 16 rows
(it reads each weight once), compute bound above.

Every output element is one chain of fused multiply-adds from the first k to the last, cut in the
same places whatever the number of rows, threads or vector lanes, so a row's bits don't depend on
its company. Native
(`cpu.c`, `tile.h`); where the library wasn't built, torch multiplies widened weights and promises
no such thing.

References: Goto and van de Geijn, Anatomy of High-Performance Matrix Multiplication (2008), for
the blocking; Van Zee and van de Geijn, BLIS (2015), for panels.
"""

from __future__ import annotations

import ctypes
from dataclasses import dataclass

import torch
from torch import Tensor

from tgi_cli.kernels import native

from . import reference
from .packing import Codes, NativeWeight
from .packing import pack as _pack_native

__all__ = [
    "Codes",
    "PackedLinear",
    "check_product",
    "implementation",
    "linear",
    "multiply",
    "pack",
]

_STORE, _GATE = 0, 2  # `Epilogue` of linear.h


@dataclass(frozen=True, slots=True)
class PackedLinear:
    """A weight in the layout of the implementation that will multiply it."""

    weight: NativeWeight | Tensor
    bias: Tensor | None  # of a plain tensor
    num_out_features: int
    num_bytes: int
    is_gated: bool
    input_order: Tensor | None = None  # [K]: the weight's columns multiply x[:, input_order]


def pack(
    weight: Tensor | Codes, bias: Tensor | None = None, *, gated: bool = False
) -> PackedLinear:
    """Copy `weight` [N, K] into the fastest layout at hand; the caller drops the original.

    With `gated` the first N / 2 rows are gates and the product is silu(gate) * up, N / 2 wide.
    """
    num_rows = weight.codes.shape[0] if isinstance(weight, Codes) else weight.shape[0]
    num_out = num_rows // 2 if gated else num_rows
    if native.is_available():
        packed = _pack_native(weight, bias, gated=gated)
        order = weight.input_order if isinstance(weight, Codes) else None
        return PackedLinear(packed, None, num_out, packed.num_bytes, gated, order)
    plain = weight.dequantize() if isinstance(weight, Codes) else weight.float().contiguous()
    bias = None if bias is None else bias.float().contiguous()
    return PackedLinear(plain, bias, num_out, plain.numel() * 4, gated)


def linear(x: Tensor, packed: PackedLinear) -> Tensor:
    """Return `x` [T, K] times the packed weight: [T, N], or [T, N / 2] if it is gated."""
    if isinstance(packed.weight, Tensor):
        return reference.linear(x, packed.weight, packed.bias, gated=packed.is_gated)
    y = torch.empty(x.shape[0], packed.num_out_features, dtype=torch.float32)
    multiply(x, packed, out=y)
    return y


def multiply(x: Tensor, packed: PackedLinear, *, out: Tensor) -> None:
    """`linear` into `out` [T, >= N], whose rows may be apart."""
    if isinstance(packed.weight, Tensor):
        y = linear(x, packed)
        out[:, : y.shape[1]].copy_(y)
        return
    if packed.input_order is not None:
        x = x.index_select(1, packed.input_order)
    check_product(x, packed, out)
    pointer, size = native.Pointer, native.Int
    native.function("tgi_linear", pointer, pointer, size, size, pointer, size, size)(
        ctypes.byref(packed.weight.descriptor),
        x.data_ptr(),
        x.stride(0),
        x.shape[0],
        out.data_ptr(),
        out.stride(0),
        _GATE if packed.is_gated else _STORE,
    )


def check_product(x: Tensor, packed: PackedLinear, out: Tensor) -> None:
    """Assert that the native library can multiply `x` with a weight that it packed into `out`."""
    assert isinstance(packed.weight, NativeWeight)
    assert (x.dtype, out.dtype) == (torch.float32, torch.float32), (x.dtype, out.dtype)
    assert (x.stride(1), out.stride(1)) == (1, 1), (x.stride(), out.stride())
    assert out.shape[1] >= packed.num_out_features, out.shape
    assert (x.shape[1], out.shape[0]) == (packed.weight.descriptor.k, x.shape[0]), out.shape


def implementation() -> str:
    """Name what `linear` runs on, for the log."""
    if not native.is_available():
        return "torch fp32 (no native library was built)"
    return f"native, {native.instruction_set()}"
