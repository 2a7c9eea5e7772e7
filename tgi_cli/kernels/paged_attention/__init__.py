"""Causal attention of the step's queries over the paged KV cache, prefill and decode in one batch.

    out[t, h] = sum_j softmax_j(cap(scale * q[t, h] . k[j, h // G])) v[j, h // G]

over the keys j of t's own sequence with p - window < j <= p, where p is t's position and window the
sliding window (all keys if there is none). G = H / Hkv query heads share one key head; cap(s) is
soft_cap * tanh(s / soft_cap), or s if there is no cap.

q, out: [T, H, D] fp32. A cache holds one layer's keys and values in the type and the layout that
its implementation reads; a slot is block * block_size + offset. Grouped-query attention: Ainslie
et al., arXiv:2305.13245. Paging: Kwon et al., arXiv:2309.06180. Soft cap: Gemma 2,
arXiv:2408.00118.

Implementations of one protocol: `native.py` is C; `gathered.py` is torch, for where the library
wasn't built or a head is of a size that it can't do. On a GPU `kernel.py` launches Triton's
kernels, q and out being fp16 or bf16; their implementation stands with the layers, since its plans
go through the platform.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    import numpy as np
    import torch
    from numpy.typing import NDArray
    from torch import Tensor

BLOCK_SIZE = 32  # tokens; the native layout knows no other


@dataclass(frozen=True, slots=True)
class Span:
    """One sequence's share of the step: tokens `start:end` of T, the last at the context's end."""

    start: int
    end: int
    context_len: int  # tokens in the cache, the step's own included
    row: int  # of the block tables

    @property
    def num_tokens(self) -> int:
        return self.end - self.start

    @property
    def num_cached_tokens(self) -> int:
        return self.context_len - self.num_tokens


class Implementation(Protocol):
    """One way of attending. Caches and plans are its own business; a plan is valid for one step."""

    name: str
    block_size: int  # tokens
    # Whether plans of as many spans of one token differ in what they upload alone, so that a graph
    # captured over one of them computes another.
    is_capturable: bool

    def new_cache(
        self, num_blocks: int, num_kv_heads: int, head_dim: int, dtype: torch.dtype
    ) -> Any:
        """Return one layer's cache, all zeros, which takes memory as it is written."""
        ...

    def store(self, kv: Tensor, cache: Any, slot_mapping: Tensor) -> None:
        """Write `kv` [T, 2, Hkv, D] to slots [T] int64, each at most once.

        Numbers are rounded; those too large for the cache's type become its largest.
        """
        ...

    def clear(self, cache: Any, block_ids: list[int] | Tensor) -> None:
        """Zero blocks that hold values which must not reach their next owner.

        Of a cache on a device the ids are a tensor there, so that nothing waits.
        """
        ...

    def plan(
        self, spans: list[Span], block_tables: NDArray[np.int64], sliding_window: int | None
    ) -> Any:
        """Lay out one step.

        `block_tables`: [rows, max_blocks], valid as far as each context reaches.
        """
        ...

    def attend(self, q: Tensor, cache: Any, plan: Any, scale: float, soft_cap: float) -> Tensor:
        """Return [T, H, D] for `q` [T, H, D], whose keys are in `cache` already."""
        ...


def choose(num_heads: int, num_kv_heads: int, head_dim: int) -> Implementation:
    """Return the fastest implementation that can do these heads."""
    from .gathered import GatheredAttention
    from .native import NativeAttention

    if NativeAttention.supports(num_heads, num_kv_heads, head_dim):
        return NativeAttention()
    return GatheredAttention()
