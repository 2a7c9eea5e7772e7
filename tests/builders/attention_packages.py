"""Stand-ins for flash-attn 2 and FlashInfer: signatures, what they refuse, slow arithmetic."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


def _attend(
    q: Tensor, keys: Tensor, values: Tensor, scale: float, left: int, soft_cap: float
) -> Tensor:
    """Return causal attention [n, H, D] of the last n of a context [L, Hkv, D]; left < 0: all."""
    if not len(keys):
        return torch.zeros_like(q)
    num_queries, num_heads, _ = q.shape
    group = num_heads // keys.shape[1]
    keys = keys.repeat_interleave(group, 1).double()
    values = values.repeat_interleave(group, 1).double()
    scores = torch.einsum("qhd,khd->hqk", q.double(), keys) * scale
    if soft_cap:
        scores = soft_cap * torch.tanh(scores / soft_cap)
    positions = torch.arange(len(keys))
    own = positions[len(keys) - num_queries :, None]
    seen = positions <= own
    if left >= 0:
        seen &= positions >= own - left
    weights = scores.masked_fill(~seen, float("-inf")).softmax(-1)
    return torch.einsum("hqk,khd->qhd", weights, values).to(q.dtype)


def _is_int32(*tensors: Tensor) -> bool:
    return all(tensor.dtype == torch.int32 and tensor.is_contiguous() for tensor in tensors)


class FakeFlashAttn:
    """The module `flash_attn`."""

    def __init__(self) -> None:
        self.calls: list[str] = []

    def flash_attn_with_kvcache(
        self,
        q: Tensor,
        k_cache: Tensor,
        v_cache: Tensor,
        k: Tensor | None = None,
        v: Tensor | None = None,
        rotary_cos: Tensor | None = None,
        rotary_sin: Tensor | None = None,
        cache_seqlens: Tensor | None = None,
        cache_batch_idx: Tensor | None = None,
        cache_leftpad: Tensor | None = None,
        block_table: Tensor | None = None,
        softmax_scale: float | None = None,
        causal: bool = False,
        window_size: tuple[int, int] = (-1, -1),
        softcap: float = 0.0,
        rotary_interleaved: bool = True,
        alibi_slopes: Tensor | None = None,
        num_splits: int = 0,
        return_softmax_lse: bool = False,
    ) -> Tensor:
        assert num_splits == 1, "a split would depend on the batch"
        assert cache_seqlens is not None
        self._check(q, k_cache, v_cache, block_table, softmax_scale, causal, window_size)
        assert q.shape[:2] == (len(cache_seqlens), 1)
        assert _is_int32(cache_seqlens)
        self.calls.append("decode")
        return torch.stack(
            [
                _attend(q[row], *contexts, softmax_scale or 0.0, window_size[0], softcap)
                for row, contexts in enumerate(
                    self._contexts(k_cache, v_cache, block_table, cache_seqlens.tolist())
                )
            ]
        )

    def flash_attn_varlen_func(
        self,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        cu_seqlens_q: Tensor,
        cu_seqlens_k: Tensor,
        max_seqlen_q: int,
        max_seqlen_k: int,
        dropout_p: float = 0.0,
        softmax_scale: float | None = None,
        causal: bool = False,
        window_size: tuple[int, int] = (-1, -1),
        softcap: float = 0.0,
        alibi_slopes: Tensor | None = None,
        deterministic: bool = False,
        return_attn_probs: bool = False,
        block_table: Tensor | None = None,
    ) -> Tensor:
        self._check(q[:, None], k, v, block_table, softmax_scale, causal, window_size)
        assert _is_int32(cu_seqlens_q, cu_seqlens_k)
        starts, lengths = cu_seqlens_q.tolist(), cu_seqlens_k.diff().tolist()
        assert starts[-1] == len(q)
        assert max_seqlen_q == int(cu_seqlens_q.diff().max())
        assert max_seqlen_k == max(lengths)
        self.calls.append("prefill")
        contexts = self._contexts(k, v, block_table, lengths)
        return torch.cat(
            [
                _attend(q[a:b], *context, softmax_scale or 0.0, window_size[0], softcap)
                for a, b, context in zip(starts, starts[1:], contexts, strict=False)
            ]
        )

    @staticmethod
    def _check(
        q: Tensor,
        keys: Tensor,
        values: Tensor,
        block_table: Tensor | None,
        scale: float | None,
        causal: bool,
        window: tuple[int, int],
    ) -> None:
        assert q.dim() == keys.dim() == values.dim() == 4, "[B, n, H, D], [blocks, size, Hkv, D]"
        assert q.dtype == keys.dtype == values.dtype
        assert q.dtype in (torch.float16, torch.bfloat16)
        assert keys.shape[1] % 256 == 0, "Paged KV cache block size must be divisible by 256"
        assert q.stride(-1) == keys.stride(-1) == values.stride(-1) == 1
        assert block_table is not None
        assert block_table.dim() == 2
        assert _is_int32(block_table)
        assert causal
        assert scale is not None
        assert window == (-1, -1) or window[1] == 0

    @staticmethod
    def _contexts(
        keys: Tensor, values: Tensor, block_table: Tensor | None, lengths: list[int]
    ) -> list[tuple[Tensor, Tensor]]:
        assert block_table is not None
        size = keys.shape[1]
        held = [row[: -(-n // size)].long() for row, n in zip(block_table, lengths, strict=True)]
        return [
            (keys[blocks].flatten(0, 1)[:n], values[blocks].flatten(0, 1)[:n])
            for blocks, n in zip(held, lengths, strict=True)
        ]


class FakeFlashInfer:
    """The module `flashinfer`."""

    def __init__(self) -> None:
        self.num_plans = 0
        module = self

        class Wrapper:
            def __init__(
                self,
                float_workspace_buffer: Tensor,
                kv_layout: str = "NHD",
                use_cuda_graph: bool = False,
                *buffers: Tensor,
                backend: str = "auto",
            ) -> None:
                assert float_workspace_buffer.dtype == torch.uint8
                assert (kv_layout, backend) == ("NHD", "fa2")
                self._plan: dict[str, Any] | None = None

            def plan(
                self,
                qo_indptr: Tensor,
                paged_kv_indptr: Tensor,
                paged_kv_indices: Tensor,
                paged_kv_last_page_len: Tensor,
                num_qo_heads: int,
                num_kv_heads: int,
                head_dim_qk: int,
                page_size: int,
                head_dim_vo: int | None = None,
                custom_mask: Tensor | None = None,
                packed_custom_mask: Tensor | None = None,
                causal: bool = False,
                pos_encoding_mode: str = "NONE",
                use_fp16_qk_reduction: bool = False,
                sm_scale: float | None = None,
                window_left: int = -1,
                logits_soft_cap: float | None = None,
                rope_scale: float | None = None,
                rope_theta: float | None = None,
                q_data_type: torch.dtype = torch.float16,
                kv_data_type: torch.dtype | None = None,
                o_data_type: torch.dtype | None = None,
                non_blocking: bool = True,
                fixed_split_size: int | None = None,
                disable_split_kv: bool = False,
            ) -> None:
                assert _is_int32(
                    qo_indptr, paged_kv_indptr, paged_kv_indices, paged_kv_last_page_len
                )
                assert len(qo_indptr) == len(paged_kv_indptr) == len(paged_kv_last_page_len) + 1
                assert int(paged_kv_indptr[-1]) == len(paged_kv_indices)
                assert bool(
                    ((paged_kv_last_page_len > 0) & (paged_kv_last_page_len <= page_size)).all()
                )
                assert num_qo_heads % num_kv_heads == 0
                assert causal
                assert disable_split_kv
                assert sm_scale is not None
                self._plan = {
                    "starts": qo_indptr.tolist(),
                    "pages": paged_kv_indptr.tolist(),
                    "indices": paged_kv_indices.long(),
                    "last": paged_kv_last_page_len.tolist(),
                    "cache": (2, page_size, num_kv_heads, head_dim_qk),
                    "q": (num_qo_heads, head_dim_qk),
                    "dtypes": (q_data_type, kv_data_type),
                    "numbers": (sm_scale, window_left, logits_soft_cap or 0.0),
                }
                module.num_plans += 1

            def run(self, q: Tensor, paged_kv_cache: Tensor) -> Tensor:
                plan = self._plan
                assert plan is not None, "plan info is not initialized"
                assert q.shape == (plan["starts"][-1], *plan["q"])
                assert paged_kv_cache.shape[1:] == plan["cache"]
                assert (q.dtype, paged_kv_cache.dtype) == plan["dtypes"]
                out = []
                for row, last in enumerate(plan["last"]):
                    first, end = plan["pages"][row : row + 2]
                    length = (end - first - 1) * plan["cache"][1] + last
                    pages = paged_kv_cache[plan["indices"][first:end]]
                    keys, values = (pages[:, i].flatten(0, 1)[:length] for i in (0, 1))
                    a, b = plan["starts"][row : row + 2]
                    out.append(_attend(q[a:b], keys, values, *plan["numbers"]))
                return torch.cat(out)

        self.BatchPrefillWithPagedKVCacheWrapper = Wrapper
