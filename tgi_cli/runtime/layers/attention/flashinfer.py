"""Attention by the package FlashInfer: `--attention flashinfer`.

Sequences that decode and the others each have a wrapper, whose plan is made once a step at the
first layer that attends. Keys are never split over programs (`disable_split_kv`), so no split
depends on the batch; but the tile of the others' kernel does, and what else a release does is its
own affair: the promise of equal bytes isn't made for it. A plan is made on the host with arrays of
the step's own sizes, so its steps aren't captured in graphs. Ye et al., FlashInfer,
arXiv:2501.01005.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from tgi_cli.kernels.paged_attention import BLOCK_SIZE, Span
from tgi_cli.runtime.layers.attention.packages import Package
from tgi_cli.runtime.layers.attention.slots import SlotCaches
from tgi_cli.runtime.layers.attention.step_rows import StepRows, decoding_and_others

if TYPE_CHECKING:
    from numpy.typing import NDArray

PACKAGE = Package("flashinfer-python", "flashinfer", (0, 5), (1, 0))
_HEAD_DIMS = (64, 128, 256)
_WORKSPACE_BYTES = 128 << 20  # as its documentation recommends


def unsupported(head_dim: int, dtype: torch.dtype, kv_dtype: torch.dtype) -> str | None:
    """Return why the package can't do such heads, or None."""
    if torch.version.hip is not None:
        return "it has no kernels for AMD's GPUs"
    if head_dim not in _HEAD_DIMS:
        return f"its heads are {', '.join(map(str, _HEAD_DIMS))} wide, and not {head_dim}"
    if kv_dtype != dtype:
        return f"its cache is of the model's own type ({dtype}) here, and not {kv_dtype}"
    return None


@dataclass(slots=True)
class FlashInferPlan:
    """What a step's first layer plans with; `planned_for` is its scale and soft cap then."""

    decoding: StepRows | None
    others: StepRows | None
    sliding_window: int | None
    planned_for: tuple[float, float] | None = None
    tokens: dict[str, Tensor] = field(default_factory=dict)  # by kind, in a mixed step


class FlashInferAttention(SlotCaches):
    """A cache is [num_blocks, 2, block_size, Hkv, D]."""

    name = "flashinfer"
    block_size = BLOCK_SIZE
    is_capturable = False  # the library lays out each step anew, in memory of its own

    def __init__(self, device: torch.device) -> None:
        self._package = PACKAGE.load("flashinfer")
        super().__init__(device)
        self._workspace = torch.empty(_WORKSPACE_BYTES, dtype=torch.uint8, device=device)
        self._wrappers: dict[tuple[str, bool], Any] = {}  # by kind, and whether it has a window

    def plan(
        self, spans: list[Span], block_tables: NDArray[np.int64], sliding_window: int | None
    ) -> FlashInferPlan:
        return FlashInferPlan(*decoding_and_others(spans, block_tables), sliding_window)

    def attend(
        self,
        q: Tensor,
        cache: Tensor,
        plan: FlashInferPlan,
        scale: float,
        soft_cap: float = 0.0,
    ) -> Tensor:
        kinds = {"decoding": plan.decoding, "others": plan.others}
        present = {kind: rows for kind, rows in kinds.items() if rows is not None}
        if plan.planned_for != (scale, soft_cap):
            for kind, rows in present.items():
                self._plan_wrapper(kind, rows, plan, q, cache, scale, soft_cap)
            plan.planned_for = (scale, soft_cap)
        has_window = plan.sliding_window is not None
        if len(present) == 1:
            (kind,) = present
            whole: Tensor = self._wrappers[kind, has_window].run(q, cache)
            return whole
        out = torch.empty_like(q)
        for kind in present:
            tokens = plan.tokens[kind]
            out[tokens] = self._wrappers[kind, has_window].run(q[tokens], cache)
        return out

    def _plan_wrapper(
        self,
        kind: str,
        rows: StepRows,
        plan: FlashInferPlan,
        q: Tensor,
        cache: Tensor,
        scale: float,
        soft_cap: float,
    ) -> None:
        """Plan the call of all layers that share this step's rows and window."""
        key = (kind, plan.sliding_window is not None)
        if key not in self._wrappers:
            self._wrappers[key] = self._package.BatchPrefillWithPagedKVCacheWrapper(
                self._workspace, "NHD", backend="fa2"
            )
        num_blocks = -(-rows.context_lens // self.block_size)
        is_held = np.arange(rows.block_tables.shape[1]) < num_blocks[:, None]
        last_lens = rows.context_lens - (num_blocks - 1) * self.block_size
        window = plan.sliding_window
        self._wrappers[key].plan(
            torch.from_numpy(rows.query_starts),
            torch.from_numpy(np.append(0, num_blocks.cumsum()).astype(np.int32)),
            torch.from_numpy(rows.block_tables[is_held]).to(self._device),
            torch.from_numpy(last_lens.astype(np.int32)),
            q.shape[1],
            cache.shape[3],
            q.shape[2],
            self.block_size,
            causal=True,
            sm_scale=scale,
            window_left=-1 if window is None else window - 1,
            logits_soft_cap=soft_cap,
            q_data_type=q.dtype,
            kv_data_type=cache.dtype,
            disable_split_kv=True,
        )
        if rows.tokens is not None:
            plan.tokens[kind] = torch.from_numpy(rows.tokens).to(self._device)
