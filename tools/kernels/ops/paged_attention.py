"""Attention over the paged cache: decode and prefill at the sizes of common models."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from tgi_cli.kernels import devices
from tgi_cli.kernels.paged_attention import BLOCK_SIZE, Span, kernel
from tgi_cli.kernels.paged_attention.layout import Heads, lay_out
from tgi_cli.kernels.paged_attention.tuned import CHUNK, tiles_for
from tools.kernels.peers import attention_peers
from tools.kernels.roofline import Cost
from tools.kernels.workload import Call, Workload, randn

_OP = "paged_attention"
_LLAMA = Heads(32, 8)


def _workload(
    kind: str,
    num_sequences: int,
    num_tokens: int,
    context_len: int,
    head_dim: int,
    *,
    heads: Heads = _LLAMA,
    dtype: torch.dtype = torch.bfloat16,
    kv_dtype: torch.dtype | None = None,
    sliding_window: int | None = None,
    soft_cap: float = 0.0,
    expected_fraction: float,
    reason: str,
    same_code_as: str | None = None,
) -> Workload:
    kv_dtype = kv_dtype or dtype
    is_fp8 = kv_dtype.itemsize == 1
    tiles = tiles_for("sm_90", head_dim, is_fp8=is_fp8)  # the largest: bounds stay bounds elsewhere
    num_heads, num_kv_heads = heads.num_heads, heads.num_kv_heads
    scale = head_dim**-0.5
    num_blocks = -(-context_len // BLOCK_SIZE)
    total = num_sequences * num_tokens
    spans = [
        Span(i * num_tokens, (i + 1) * num_tokens, context_len, i) for i in range(num_sequences)
    ]
    # As if each kernel had the step to itself.
    max_lines = 0 if num_tokens > 1 else num_sequences * num_heads * -(-context_len // CHUNK)

    def make(device: str) -> Call:
        q = randn(total, num_heads, head_dim, dtype=dtype, device=device)
        cache = randn(
            *(num_sequences * num_blocks, 2, num_kv_heads, BLOCK_SIZE, head_dim),
            dtype=kv_dtype,
            device=device,
        )
        block_ids = np.arange(num_sequences * num_blocks, dtype=np.int32)[::-1]
        tables = block_ids.reshape(num_sequences, num_blocks).copy()
        layout = lay_out(
            spans,
            sliding_window,
            heads,
            whole_rows=tiles_for(devices.target(), head_dim, is_fp8=is_fp8).whole_rows,
            max_lines=max_lines,
            max_context=context_len,
        )
        step = kernel.Step(
            sequences=torch.from_numpy(layout.sequences).to(device),
            block_tables=torch.from_numpy(tables).to(device),
            split=torch.from_numpy(layout.split).to(device) if num_tokens == 1 else None,
            whole=torch.from_numpy(layout.whole).to(device) if num_tokens > 1 else None,
            num_splits=layout.num_splits,
            split_rows=layout.split_rows,
            sliding_window=sliding_window,
        )
        partials = kernel.Partials(
            torch.empty(max_lines, head_dim, device=device),
            torch.empty(max_lines, 2, device=device),
        )
        out = torch.empty_like(q)

        def run() -> tuple[Tensor, ...]:
            return (kernel.attend(q, cache, step, partials, scale, soft_cap, out=out),)

        def expect() -> tuple[Tensor, ...]:
            return (_dense(q, cache, tables, num_tokens, context_len, sliding_window, soft_cap),)

        peers = {}
        if sliding_window is None and not soft_cap and not is_fp8:
            peers = attention_peers(q, num_sequences, context_len, num_kv_heads)
        return Call(run, expect, peers)

    seen = min(context_len, sliding_window or context_len)
    pairs = total * seen - (num_tokens * (num_tokens - 1) // 2 * num_sequences)
    num_chunks = -(-seen // CHUNK)
    num_launches = -(-head_dim // (tiles.sum_width * tiles.whole_sums))
    num_bytes = num_sequences * seen * num_kv_heads * 2 * head_dim * kv_dtype.itemsize
    num_bytes += 2 * total * num_heads * head_dim * dtype.itemsize  # q and out
    if num_tokens == 1:  # what chunks leave behind, written and read
        num_bytes += 8 * (head_dim + 2) * total * num_heads * num_chunks
    return Workload(
        op=_OP,
        shape=f"{kind} {num_sequences} x {context_len}, D {head_dim}"
        + (", fp8" if is_fp8 else "")
        + (f", window {sliding_window}" if sliding_window else "")
        + (f", cap {soft_cap:g}" if soft_cap else ""),
        make=make,
        cost=Cost(num_bytes, 4 * pairs * num_heads * head_dim),
        num_programs=num_sequences * num_kv_heads * num_chunks
        if num_tokens == 1
        else -(-total * num_heads // tiles.whole_rows),
        bytes_in_flight=2 * 64 * head_dim * kv_dtype.itemsize,
        expected_fraction=expected_fraction,
        reason=reason,
        loop_turns=(CHUNK if num_tokens == 1 else num_launches * pairs // total) // tiles.keys,
        uses_mma=True,
        needs_wide_loads=num_tokens == 1,
        tolerance=2.0,
        same_code_as=same_code_as,
    )


def _dense(
    q: Tensor,
    cache: Tensor,
    tables: np.ndarray,
    num_tokens: int,
    context_len: int,
    sliding_window: int | None,
    soft_cap: float,
) -> Tensor:
    """Attend with whole matrices of scores in fp32, a sequence and a head at a time."""
    num_kv_heads, head_dim = cache.shape[2], cache.shape[4]
    group_size = q.shape[1] // num_kv_heads
    out = torch.empty(q.shape, dtype=torch.float32, device=q.device)
    keys = torch.arange(context_len, device=q.device)
    positions = torch.arange(context_len - num_tokens, context_len, device=q.device)[:, None]
    is_seen = keys <= positions
    if sliding_window is not None:
        is_seen &= keys > positions - sliding_window
    bits = cache.view(torch.uint8) if cache.dtype.itemsize == 1 else cache
    for sequence, table in enumerate(tables):
        blocks = bits[torch.from_numpy(table).long().to(q.device)].view(cache.dtype)
        tokens = slice(sequence * num_tokens, (sequence + 1) * num_tokens)
        for head in range(q.shape[1]):
            context = blocks[:, :, head // group_size].float()  # [blocks, 2, block_size, D]
            k, v = context.transpose(0, 1).reshape(2, -1, head_dim)[:, :context_len]
            scores = q[tokens, head].float() @ k.T * head_dim**-0.5
            if soft_cap:
                scores = soft_cap * torch.tanh(scores / soft_cap)
            scores = scores.masked_fill(~is_seen, -float("inf"))
            out[tokens, head] = torch.softmax(scores, 1) @ v
    return out


_FEW = "chunks start empty; the merge is a launch of its own"
_SUMS = "softmax between the products; K and V from the L2 cache once for 128 rows"
_TWICE = "scores are computed twice, for two halves of the values"


def _workloads() -> list[Workload]:
    found = []
    for head_dim in (64, 80, 96, 128, 256):
        found.append(_workload("decode", 8, 1, 4096, head_dim, expected_fraction=0.75, reason=_FEW))
        found.append(
            _workload(
                "prefill", 1, 4096, 4096, head_dim,
                expected_fraction=0.3 if head_dim == 256 else 0.4,
                reason=_TWICE if head_dim == 256 else _SUMS,
                same_code_as=found[-1].shape,
            )
        )  # fmt: skip
    for head_dim in (128, 256):
        found.append(
            _workload(
                "decode",
                8,
                1,
                4096,
                head_dim,
                kv_dtype=torch.float8_e4m3fn,
                expected_fraction=0.6,
                reason="widening before the products; on A100 it takes longer than loading",
            )
        )
        found.append(
            _workload(
                "prefill", 1, 4096, 4096, head_dim, kv_dtype=torch.float8_e4m3fn,
                expected_fraction=0.2 if head_dim == 256 else 0.3,
                reason="keys are widened once for 128 rows",
                same_code_as=found[-1].shape,
            )
        )  # fmt: skip
    gemma = _workload(
        "decode", 8, 1, 8192, 256, heads=Heads(16, 8), sliding_window=4096, soft_cap=50.0,
        expected_fraction=0.7, reason=_FEW,
    )  # fmt: skip
    return [
        *found,
        gemma,
        _workload(
            "prefill", 1, 4096, 8192, 256, heads=Heads(16, 8), sliding_window=4096, soft_cap=50.0,
            expected_fraction=0.25, reason=_TWICE, same_code_as=gemma.shape,
        ),
    ]  # fmt: skip


WORKLOADS = _workloads()
