"""Paged attention by Triton's kernels: the backend of GPUs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from tgi_cli.kernels.paged_attention import BLOCK_SIZE, Span
from tgi_cli.kernels.paged_attention.layout import Heads, lay_out
from tgi_cli.kernels.paged_attention.tuned import MAX_HEAD_DIM

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

    from tgi_cli.kernels.paged_attention.kernel import Step
    from tgi_cli.runtime.platforms.uploads import Uploader

_NUMBERS = (torch.float16, torch.bfloat16)
_FP8 = (torch.float8_e4m3fn, torch.float8_e5m2)


def unsupported(head_dim: int, dtype: torch.dtype, kv_cache_dtype: torch.dtype) -> str | None:
    """Return why the kernels can't do a model of `dtype` with such heads and cache, or None."""
    if head_dim > MAX_HEAD_DIM or head_dim % 16:
        return (
            f"heads of {head_dim} numbers, where the attention kernels take multiples of 16 up to "
            f"{MAX_HEAD_DIM}"
        )
    if dtype not in _NUMBERS:
        return f"{_name(dtype)}, where the attention kernels take float16 and bfloat16"
    if kv_cache_dtype not in (dtype, *_FP8):
        kinds = ", ".join(_name(kind) for kind in (dtype, *_FP8))
        return f"a KV cache of {_name(kv_cache_dtype)}, where the attention kernels take {kinds}"
    return None


class TritonPagedAttention:
    """A cache is [num_blocks, 2, Hkv, block_size, D]; q, k and v are fp16 or bf16.

    `max_context`: tokens of the longest sequence; the kernels' grids are made for it.
    `max_partial_bytes`: what chunks of keys leave for their merging; it is allocated here.
    """

    name = "triton"
    block_size = BLOCK_SIZE
    is_capturable = True

    def __init__(
        self,
        *,
        num_heads: int,
        num_kv_heads: int,
        head_dim: int,
        kv_cache_dtype: torch.dtype,
        max_context: int,
        device: torch.device,
        uploader: Uploader,
        max_partial_bytes: int = 128 << 20,
    ) -> None:
        from tgi_cli.kernels import devices
        from tgi_cli.kernels.paged_attention.kernel import Partials
        from tgi_cli.kernels.paged_attention.tuned import tiles_for

        self._heads = Heads(num_heads, num_kv_heads)
        self._max_context = max_context
        self._device = device
        self._uploader = uploader
        self._whole_rows = tiles_for(
            devices.target(), head_dim, is_fp8=kv_cache_dtype in _FP8
        ).whole_rows
        self._max_lines = max_partial_bytes // (4 * (head_dim + 2))
        self._partials = Partials(
            torch.empty((self._max_lines, head_dim), device=device),
            torch.empty((self._max_lines, 2), device=device),
        )
        self._uploaded: tuple[list[Span], Tensor, Tensor] | None = None

    def new_cache(
        self, num_blocks: int, num_kv_heads: int, head_dim: int, dtype: torch.dtype
    ) -> Tensor:
        shape = (num_blocks, 2, num_kv_heads, BLOCK_SIZE, head_dim)
        return torch.zeros(shape, dtype=_bits_dtype(dtype), device=self._device).view(dtype)

    def store(self, kv: Tensor, cache: Tensor, slot_mapping: Tensor) -> None:
        """As the protocol says; a slot below 0 takes nothing."""
        from tgi_cli.kernels.paged_attention import kernel

        kernel.store(kv, cache, slot_mapping)

    def clear(self, cache: Tensor, block_ids: list[int] | Tensor) -> None:
        cache.view(_bits_dtype(cache.dtype))[block_ids] = 0

    def plan(
        self, spans: list[Span], block_tables: NDArray[Any], sliding_window: int | None
    ) -> Step:
        """Lay out one step and upload it.

        Where every span is one token, the launches depend on their number alone, so that a CUDA
        graph can repeat them; it is filled up with spans of context 0, whose results are zeros.
        Plans of one step share `spans`, the same list; another step has another.
        """
        from tgi_cli.kernels.paged_attention.kernel import Step

        layout = lay_out(
            spans,
            sliding_window,
            self._heads,
            whole_rows=self._whole_rows,
            max_lines=self._max_lines,
            max_context=self._max_context,
        )
        if self._uploaded is None or self._uploaded[0] is not spans:
            sequences = self._uploader.upload("attention.sequences", layout.sequences)
            tables = block_tables.astype(np.int32, copy=False)
            self._uploaded = (
                spans,
                sequences,
                self._uploader.upload("attention.block_tables", tables),
            )
        _, sequences, tables_there = self._uploaded
        return Step(
            sequences=sequences,
            block_tables=tables_there,
            split=self._upload(f"attention.split.{sliding_window}", layout.split),
            whole=self._upload(f"attention.whole.{sliding_window}", layout.whole),
            num_splits=layout.num_splits,
            split_rows=layout.split_rows,
            sliding_window=sliding_window,
        )

    def _upload(self, name: str, tiles: NDArray[np.int32]) -> Tensor | None:
        return self._uploader.upload(name, tiles) if len(tiles) else None

    def attend(
        self, q: Tensor, cache: Tensor, plan: Step, scale: float, soft_cap: float = 0.0
    ) -> Tensor:
        from tgi_cli.kernels.paged_attention import kernel

        out = torch.empty(q.shape, dtype=q.dtype, device=q.device)
        return kernel.attend(q, cache, plan, self._partials, scale, soft_cap, out=out)


def _bits_dtype(dtype: torch.dtype) -> torch.dtype:
    """Return the type to fill with zeros, which torch can't for all of fp8's."""
    return torch.uint8 if dtype in _FP8 else dtype


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
