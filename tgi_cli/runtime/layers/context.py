"""What every layer needs to know of the step, handed down explicitly: no globals.

T is the number of tokens of the step, prefill and decode together; N the rows that want logits.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tgi_cli.runtime.layers.kv_cache import KVCache

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, slots=True)
class ForwardContext:
    cos: Tensor  # [T, 1, D] fp32, of each token's position
    signed_sin: Tensor  # [T, 1, D] fp32
    slot_mapping: Tensor  # [T] int64
    wanted: Tensor  # [N] int64, of T: the rows whose final hidden states are wanted
    kv_cache: KVCache
    attention: Any  # the backend's plan, of the layers that see the whole context
    windowed_attention: Any  # of those with a sliding window; the same if there is none
