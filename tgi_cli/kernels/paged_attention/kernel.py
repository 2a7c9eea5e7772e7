"""Paged attention on a GPU: launches of the Triton kernels in the files beside this one.

`store_kernel.py` writes keys and values, `attend_kernel.py` attends, `merge_kernel.py` puts split
work together. A cache is [num_blocks, 2, Hkv, block_size, D], so that the keys of one head in one
block are one run of memory.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
import triton

from tgi_cli.kernels import devices

from .attend_kernel import attend_split_kernel, attend_whole_kernel
from .merge_kernel import merge_kernel
from .store_kernel import store_kernel
from .tuned import CHUNK, SPLIT_ROWS, head_pad, tiles_for

if TYPE_CHECKING:
    from torch import Tensor

FP8_FRACTION_BITS = {torch.float8_e4m3fn: 3, torch.float8_e5m2: 2}
_WIDENED_BY_TARGET = {
    ("sm_80", torch.float8_e5m2),
    ("sm_90", torch.float8_e4m3fn),
    ("sm_90", torch.float8_e5m2),
    ("gfx942", torch.float8_e4m3fn),
    ("gfx942", torch.float8_e5m2),
}
# Left to itself ptxas spills rather than take registers that keep another program from its
# multiprocessor. On gfx942 tiles of any rows must be added by the same instruction.
_OPTIONS = {"sm_80": {"maxnreg": 255}, "sm_90": {}, "gfx942": {"matrix_instr_nonkdim": 16}}
_NO_WINDOW = 1 << 30
_ROWS_OF_A_WARP = 16


@dataclass(frozen=True, slots=True)
class Step:
    """A `Layout` on the device."""

    sequences: Tensor  # [B + 1, 4] int32
    block_tables: Tensor  # [lines, max_blocks] int32, valid as far as each context reaches
    split: Tensor | None  # [n, 4] int32
    whole: Tensor | None
    num_splits: int
    split_rows: int
    sliding_window: int | None


@dataclass(frozen=True, slots=True)
class Partials:
    """Room for the results of chunks. `Layout` hands out the lines."""

    sums: Tensor  # [lines, D] fp32
    stats: Tensor  # [lines, 2] fp32


def store(kv: Tensor, cache: Tensor, slot_mapping: Tensor) -> None:
    """Write `kv` [T, 2, Hkv, D] to slots [T] int64 of `cache`; a slot below 0 takes nothing.

    Numbers are rounded to nearest; those too large for the cache's type become its largest.
    """
    num_tokens, _, num_kv_heads, head_dim = kv.shape
    assert kv.stride()[1:] == (num_kv_heads * head_dim, head_dim, 1), kv.stride()
    store_kernel[(num_tokens,)](
        kv,
        slot_mapping,
        _bits(cache),
        kv.stride(0),
        cache.stride(0),
        NUM_HEADS=2 * num_kv_heads,
        HEAD_DIM=head_dim,
        BLOCK_SIZE=cache.shape[3],
        LARGEST=torch.finfo(cache.dtype).max,
        FP8=FP8_FRACTION_BITS.get(cache.dtype, 0),
        BLOCK=min(triton.next_power_of_2(2 * num_kv_heads * head_dim), 2048),
    )


def attend(
    q: Tensor,
    cache: Tensor,
    step: Step,
    partials: Partials,
    scale: float,
    soft_cap: float = 0.0,
    *,
    out: Tensor,
) -> Tensor:
    """Write [T, H, D] for `q` [T, H, D] to `out`, in its type, and return it."""
    num_heads, head_dim = q.shape[1:]
    num_kv_heads, block_size = cache.shape[2:4]
    assert q.stride()[1:] == out.stride()[1:] == (head_dim, 1), (q.stride(), out.stride())
    target = devices.target()
    tiles = tiles_for(target, head_dim, is_fp8=cache.dtype in FP8_FRACTION_BITS)
    log2_e = math.log2(math.e)
    # Below a cap scores are the argument of tanh, doubled.
    score_scale = 2.0 * scale / soft_cap if soft_cap else scale * log2_e
    window = step.sliding_window or _NO_WINDOW
    heads = {"G": num_heads // num_kv_heads, "NUM_KV_HEADS": num_kv_heads, "HEAD_DIM": head_dim}
    shared: dict[str, Any] = {
        **heads,
        "HEAD_PAD": head_pad(head_dim),
        "SUM_WIDTH": tiles.sum_width,
        "KEYS": tiles.keys,
        "CHUNK": CHUNK,
        "BLOCK_SIZE": block_size,
        "FP8": FP8_FRACTION_BITS.get(cache.dtype, 0),
        "HAS_CAP": soft_cap != 0.0,
        "HAS_WINDOW": step.sliding_window is not None,
        # Without contraction, a sum and a product are the same in every kernel.
        "enable_fp_fusion": False,
        **_OPTIONS[target],
    }
    numbers = (score_scale, soft_cap * log2_e, window)
    strides = (cache.stride(0), step.block_tables.stride(0))
    if step.whole is not None:
        for start in range(0, head_dim, tiles.sum_width * tiles.whole_sums):
            attend_whole_kernel[(len(step.whole), num_kv_heads)](
                q,
                _readable(cache, target),
                step.sequences,
                step.whole,
                step.block_tables,
                out,
                q.stride(0),
                out.stride(0),
                *strides,
                *numbers,
                SUM_START=start,
                NUM_SUMS=tiles.whole_sums,
                ROWS=tiles.whole_rows,
                num_warps=tiles.whole_rows // _ROWS_OF_A_WARP,
                num_stages=tiles.whole_stages,
                **shared,
            )
    if step.split is not None:
        attend_split_kernel[(len(step.split), num_kv_heads, step.num_splits)](
            q,
            _readable(cache, target),
            step.sequences,
            step.split,
            step.block_tables,
            partials.sums,
            partials.stats,
            q.stride(0),
            *strides,
            *numbers,
            NUM_SUMS=-(-head_dim // tiles.sum_width),
            ROWS=SPLIT_ROWS,
            num_warps=SPLIT_ROWS // _ROWS_OF_A_WARP,
            num_stages=tiles.split_stages,
            **shared,
        )
        merge_kernel[(len(step.split), num_kv_heads, step.split_rows)](
            partials.sums,
            partials.stats,
            step.sequences,
            step.split,
            out,
            out.stride(0),
            window,
            **heads,
            HEAD_PAD=head_pad(head_dim),
            ROWS=SPLIT_ROWS,
            CHUNK=CHUNK,
            num_warps=1,
            enable_fp_fusion=False,
        )
    return out


def _bits(cache: Tensor) -> Tensor:
    return cache.view(torch.uint8) if cache.dtype in FP8_FRACTION_BITS else cache


def _readable(cache: Tensor, target: str) -> Tensor:
    """Return `cache` in a type that the target widens by itself, or fp8's bits. Both are exact."""
    return cache if (target, cache.dtype) in _WIDENED_BY_TARGET else _bits(cache)
