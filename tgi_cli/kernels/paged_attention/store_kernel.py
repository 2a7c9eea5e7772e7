"""Write a step's keys and values to their slots of the paged cache.

kv: [T, 2, Hkv, D] fp32, fp16 or bf16, tokens apart; cache: [num_blocks, 2, Hkv, block_size, D]
fp16, bf16, or the bits of fp8; slots: [T] int64, below 0 for a row that is not stored. One program
for each token. Memory bound: moves T * 2 * Hkv * D * (kv + cache) bytes.
"""

from __future__ import annotations

import triton
import triton.language as tl

from .fp8_kernel import narrow


@triton.jit
def store_kernel(
    kv_ptr,
    slots_ptr,
    cache_ptr,
    kv_stride,
    block_stride,
    NUM_HEADS: tl.constexpr,  # keys' and values' together: 2 * Hkv
    HEAD_DIM: tl.constexpr,
    BLOCK_SIZE: tl.constexpr,
    LARGEST: tl.constexpr,  # of the cache's type
    FP8: tl.constexpr,
    BLOCK: tl.constexpr,
):
    token = tl.program_id(0).to(tl.int64)
    slot = tl.load(slots_ptr + token)
    places = cache_ptr + (slot // BLOCK_SIZE) * block_stride + (slot % BLOCK_SIZE) * HEAD_DIM
    for start in range(0, NUM_HEADS * HEAD_DIM, BLOCK):
        numbers = start + tl.arange(0, BLOCK)
        mask = (numbers < NUM_HEADS * HEAD_DIM) & (slot >= 0)
        x = tl.load(kv_ptr + token * kv_stride + numbers, mask=mask, other=0.0).to(tl.float32)
        if FP8:
            stored = narrow(x, FP8)
        else:
            x = tl.where(x > LARGEST, LARGEST, tl.where(x < -LARGEST, -LARGEST, x))  # not NaN
            stored = x.to(cache_ptr.dtype.element_ty)
        head, dim = numbers // HEAD_DIM, numbers % HEAD_DIM
        tl.store(places + head * (BLOCK_SIZE * HEAD_DIM) + dim, stored, mask=mask)
