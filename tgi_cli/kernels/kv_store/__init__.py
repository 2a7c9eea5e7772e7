"""Write the step's keys and values into their slots of the paged cache.

    cache[slot // block_size, :, :, slot % block_size] = kv

kv: [T, 2, Hkv, D] fp32, keys then values, rows of D contiguous; slot_mapping: [T] int64, each
slot at most once; cache: [num_blocks, 2, Hkv, block_size, D] fp32, so that one head's keys of a
block are neighbours and attention reads them as a stream. Memory bound. Native (`cpu.c`) where it
was built.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from tgi_cli.kernels import native

from . import reference

if TYPE_CHECKING:
    from torch import Tensor


def kv_store(kv: Tensor, cache: Tensor, slot_mapping: Tensor) -> None:
    """Store `kv` at `slot_mapping` in place."""
    num_tokens, _, num_kv_heads, head_dim = kv.shape
    if not native.is_available():
        reference.kv_store(kv, cache, slot_mapping)
        return
    assert kv.stride()[1:] == (num_kv_heads * head_dim, head_dim, 1), kv.stride()
    assert cache.is_contiguous()
    native.function(
        "tgi_kv_store",
        *(native.Pointer, native.Int, native.Pointer, native.Pointer),
        *(native.Int, native.Int, native.Int, native.Int),
    )(
        kv.data_ptr(),
        kv.stride(0),
        cache.data_ptr(),
        slot_mapping.data_ptr(),
        num_tokens,
        num_kv_heads,
        cache.shape[3],
        head_dim,
    )
