"""How others attend, to be timed beside ours: torch, and flash-attn where it is installed.

Their keys and values lie in one piece for each sequence, which is easier than our blocks.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from functools import cache, partial

import torch
from torch import Tensor

from tools.kernels.workload import randn


def attention_peers(
    q: Tensor, num_sequences: int, context_len: int, num_kv_heads: int
) -> dict[str, Callable[[], object]]:
    """Return calls by name, of equal sequences whose tokens `q` [T, H, D] end their contexts.

    Causal; a sequence has one token of the step or all. Keys are made when a call is first made.
    """
    num_tokens = len(q) // num_sequences
    assert num_tokens in (1, context_len), (num_tokens, context_len)
    queries = q.view(num_sequences, num_tokens, *q.shape[1:])  # [B, n, H, D]

    @cache
    def context() -> tuple[Tensor, Tensor]:
        shape = (num_sequences, context_len, num_kv_heads, q.shape[2])
        return (
            randn(*shape, dtype=q.dtype, device=str(q.device)),
            randn(*shape, dtype=q.dtype, device=str(q.device)),
        )

    peers: dict[str, Callable[[], object]] = {"torch": partial(_torch, queries, context)}
    if importlib.util.find_spec("flash_attn") is not None:
        peers["flash-attn"] = partial(_flash_attn, queries, context)
    return peers


def _torch(queries: Tensor, context: Callable[[], tuple[Tensor, Tensor]]) -> Tensor:
    q, k, v = (tensor.transpose(1, 2) for tensor in (queries, *context()))  # [B, heads, n, D]
    return torch.nn.functional.scaled_dot_product_attention(
        q,
        k,
        v,
        is_causal=queries.shape[1] > 1,
        enable_gqa=True,
    )


def _flash_attn(queries: Tensor, context: Callable[[], tuple[Tensor, Tensor]]) -> object:
    package = importlib.import_module("flash_attn")
    keys, values = context()
    if queries.shape[1] > 1:
        return package.flash_attn_func(queries, keys, values, causal=True)
    return package.flash_attn_with_kvcache(queries, keys, values, causal=True)
