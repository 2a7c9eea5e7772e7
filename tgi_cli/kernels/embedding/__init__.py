"""Rows of a weight that is packed for products: the embedding of a model with a tied head.

    y[t] = weight[ids[t]]

ids: [T] int64; weight: [V, K] as `kernels.linear` packs it; y: [T, K] fp32, each the very number
that the product multiplies with. A tied weight is so in memory once. Native (`cpu.c`): a row is
read from K lines of 64 bytes, which for a step's tokens is little beside its products.

`embed_rows` reads a plain weight, in Triton (`kernel.py`) on a GPU.
"""

from __future__ import annotations

import ctypes

import torch
from torch import Tensor

from tgi_cli.kernels import devices, native
from tgi_cli.kernels.linear import PackedLinear


def embed(ids: Tensor, packed: PackedLinear) -> Tensor:
    """Return rows `ids` [T] of the packed weight: [T, K] fp32.

    Raises:
        IndexError: an id that the weight has no row for.
    """
    assert not packed.is_gated, "a gated weight's rows lie in another order"
    if isinstance(packed.weight, Tensor):
        return embed_rows(ids, packed.weight)
    assert ids.dtype == torch.int64, ids.dtype
    assert ids.is_contiguous(), ids.stride()
    descriptor = packed.weight.descriptor
    y = torch.empty(len(ids), descriptor.k, dtype=torch.float32)
    pointer, size = native.Pointer, native.Int
    num_read = native.function("tgi_embedding", pointer, pointer, size, pointer, returns=size)(
        ctypes.byref(descriptor), ids.data_ptr(), len(ids), y.data_ptr()
    )
    if num_read < len(ids):
        raise IndexError(f"token id {int(ids[num_read])} of {descriptor.n} rows")
    return y


def embed_rows(ids: Tensor, weight: Tensor) -> Tensor:
    """Return rows `ids` [T] of a plain `weight` [V, K] as [T, K] fp32.

    On a GPU an id that the weight has no row for gives zeros.

    Raises:
        IndexError: there is such an id, on a CPU.
    """
    if devices.is_gpu(weight):
        from . import kernel

        return kernel.embed(ids, weight)
    return weight.index_select(0, ids).float()
