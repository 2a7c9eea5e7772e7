"""Causal attention of the step's queries over the paged KV cache, prefill and decode in one batch.

    out[t, h] = sum_j softmax_j(scale * q[t, h] . k[j, h // G]) v[j, h // G]

over the keys j of t's own sequence with p - window < j <= p, where p is t's position and window the
sliding window (all keys if there is none). G = H / Hkv query heads share one key head.

q, out: [T, H, D] fp32; cache: [num_blocks, 2, Hkv, block_size, D] fp32, keys before values, which
already holds the step's own. Grouped-query attention: Ainslie et al., arXiv:2305.13245.

Two implementations with the same two functions: `plan` does what all layers of a step share,
`attend` is called by each layer. `native.py` is C and reads the cache in place; `gathered.py` is
torch, for where the library wasn't built or a head is of a size that it can't do.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor


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
    """One way of attending. A plan is its own business; it is valid for one step."""

    name: str

    def plan(
        self,
        spans: list[Span],
        block_tables: NDArray[np.int64],
        block_size: int,
        sliding_window: int | None,
    ) -> Any:
        """Lay out one step.

        `block_tables`: [rows, max_blocks], valid as far as each context reaches.
        """
        ...

    def attend(self, q: Tensor, kv: Tensor, cache: Tensor, plan: Any, scale: float) -> Tensor:
        """Return [T, H, D] for `q` [T, H, D]; `kv` [T, 2, Hkv, D] is in `cache` already."""
        ...


def choose(num_heads: int, num_kv_heads: int, head_dim: int) -> Implementation:
    """Return the fastest implementation that can do these heads."""
    from .gathered import GatheredAttention
    from .native import NativeAttention

    if NativeAttention.supports(num_heads, num_kv_heads, head_dim):
        return NativeAttention()
    return GatheredAttention()
