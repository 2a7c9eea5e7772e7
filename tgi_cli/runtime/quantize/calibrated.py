"""Walk one layer's projections in the order of use, each calibrated on what was rounded before it.

"True sequential": q, k and v; then o on their rounded outputs; then gate and up; then down. Before
a stage is rounded its weights may be aimed at the original's outputs (`feedback.py`), and scales
may move out of its inputs (`awq.py`, `folds.py`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from tgi_cli.runtime.quantize.awq import search_scales
from tgi_cli.runtime.quantize.feedback import corrected
from tgi_cli.runtime.quantize.folds import divide_rows, usable_for_norm, usable_for_rows
from tgi_cli.runtime.quantize.forward import LayerForward
from tgi_cli.runtime.quantize.gptq import DEFAULT_DAMPING
from tgi_cli.runtime.quantize.grid import Grid, QuantizedLinear
from tgi_cli.runtime.quantize.solver import (
    Activations,
    LayerSolution,
    LayerTensors,
    OnProjection,
    Rounder,
    Solution,
    other_tensors,
)
from tgi_cli.runtime.quantize.statistics import InputStatistics, check_finite

_TOKENS_TOGETHER = 1024  # of a forward pass

_QKV = ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj")
_OUT = ("self_attn.o_proj",)
_GATE_UP = ("mlp.gate_proj", "mlp.up_proj")
_DOWN = ("mlp.down_proj",)

Part = Callable[[LayerTensors, Tensor], Tensor]


@dataclass(frozen=True, slots=True)
class CalibratedSolver:
    """`scales_inputs`: search and fold AWQ's scales; `needs_original`: aim at the original."""

    forward: LayerForward
    grid: Grid
    rounder: Rounder
    scales_inputs: bool
    needs_original: bool
    damping: float = DEFAULT_DAMPING  # of the aim
    needs_calibration: bool = True

    def solve_layer(
        self, layer: LayerTensors, activations: Activations | None, on_projection: OnProjection
    ) -> LayerSolution:
        assert activations is not None, "this solver is calibrated"
        return _Walk(self, layer, activations, on_projection).run()


class _Walk:
    """One layer on its way; `_now` holds its tensors, those rounded already as they dequantise."""

    def __init__(
        self,
        solver: CalibratedSolver,
        layer: LayerTensors,
        activations: Activations,
        on_projection: OnProjection,
    ) -> None:
        self._solver = solver
        self._forward = solver.forward
        self._layer = layer
        self._now = dict(layer)
        self._solutions: dict[str, Solution] = {}
        self._on_projection = on_projection
        self._x = activations.quantized
        self._original = activations.original if solver.needs_original else None
        self._chunk = max(1, _TOKENS_TOGETHER // self._x.shape[1])

    def run(self) -> LayerSolution:
        forward, heads = self._forward, self._forward.heads
        self._solve(_QKV, forward.attention_input, norm="input_layernorm.weight")

        def attend(layer: LayerTensors, x: Tensor) -> Tensor:
            return forward.attend(layer, forward.attention_input(layer, x))

        sharing = (heads.num_heads // heads.num_kv_heads, heads.head_dim)
        self._solve(_OUT, attend, rows=("self_attn.v_proj", *sharing), adds=True)
        self._enter_feed_forward()
        self._solve(_GATE_UP, forward.feed_forward_input, norm="post_attention_layernorm.weight")

        def gate(layer: LayerTensors, x: Tensor) -> Tensor:
            return forward.gate(layer, forward.feed_forward_input(layer, x))

        num_inner = len(self._layer["mlp.up_proj.weight"])
        self._solve(_DOWN, gate, rows=("mlp.up_proj", 1, num_inner), adds=True)
        return LayerSolution(self._solutions, other_tensors(self._now))

    def _enter_feed_forward(self) -> None:
        """Go on with the residual streams between the layer's halves; the layer's inputs stay."""
        self._x = self._residual(self._now, self._x)
        if self._original is not None:
            self._original = self._residual(self._layer, self._original)

    def _residual(self, layer: LayerTensors, x: Tensor) -> Tensor:
        parts = [self._forward.residual(layer, windows) for windows in x.split(self._chunk)]
        return torch.cat(parts)

    def _solve(
        self,
        names: tuple[str, ...],
        part: Part,
        *,
        norm: str | None = None,
        rows: tuple[str, int, int] | None = None,
        adds: bool = False,
    ) -> None:
        """Round the projections `names`, whose input is `part` of the layer.

        Their inputs' scales can go into the norm `norm`, or into `rows`: a projection, and how its
        rows are shared (`folds.py`). `adds`: the output goes to the residual stream.
        """
        solver = self._solver
        stacked = torch.cat([self._layer[f"{name}.weight"] for name in names])
        check_finite(stacked, f"Layer {self._forward.index}, weights of {names[0]}")
        statistics = self._collect(names[0], stacked.shape[1], part, adds)
        weight = corrected(stacked, statistics, solver.damping)
        gram = statistics.gram
        if solver.scales_inputs:
            scales = self._move_scales(weight, statistics, norm, rows)
            weight = weight * scales
            gram = gram / scales / scales[:, None]
        linear, damping = solver.rounder.round(weight, gram, solver.grid)
        start = 0
        for name in names:
            stop = start + len(self._layer[f"{name}.weight"])
            self._keep(name, _rows_of(linear, start, stop), weight[start:stop], gram, damping)
            start = stop

    def _keep(
        self,
        name: str,
        linear: QuantizedLinear,
        weight: Tensor,
        gram: Tensor,
        damping: float | None,
    ) -> None:
        rounded = linear.dequantize()
        error = weight - rounded
        loss = float((error @ gram).mul_(error).sum())
        whole = float((weight @ gram).mul_(weight).sum())
        self._solutions[name] = Solution(linear, loss, loss / whole if whole else 0.0, damping)
        self._now[f"{name}.weight"] = rounded
        self._on_projection(name)

    def _collect(self, name: str, num_in: int, part: Part, adds: bool) -> InputStatistics:
        statistics = InputStatistics(num_in, self._x.device)
        original = self._original
        for start in range(0, len(self._x), self._chunk):
            windows = slice(start, start + self._chunk)
            x = self._x[windows]
            if original is None:
                statistics.add(part(self._now, x))
                continue
            there = original[windows]
            ahead = there - x if adds else None
            statistics.add(part(self._now, x), part(self._layer, there), ahead)
        check_finite(statistics.gram, f"Layer {self._forward.index}, inputs of {name}")
        return statistics

    def _move_scales(
        self,
        weight: Tensor,
        statistics: InputStatistics,
        norm: str | None,
        rows: tuple[str, int, int] | None,
    ) -> Tensor:
        """Choose scales [K], fold them into what makes the inputs, and return them."""
        grid, magnitude, gram = self._solver.grid, statistics.magnitude, statistics.gram
        if norm is not None:
            old = self._now[norm]
            scales = search_scales(
                weight, magnitude, gram, grid, lambda wanted: usable_for_norm(wanted, old)[0]
            )
            scales, self._now[norm] = usable_for_norm(scales, old)
            return scales
        assert rows is not None, "scales need somewhere to go"
        name, *sharing = rows
        num_sharing, head_dim = sharing
        solution, bias = self._solutions[name], self._now.get(f"{name}.bias")
        scales = search_scales(
            weight,
            magnitude,
            gram,
            grid,
            lambda wanted: usable_for_rows(wanted, solution.linear, bias, num_sharing, head_dim),
        )
        linear, by_row = divide_rows(scales, solution.linear, num_sharing, head_dim)
        self._solutions[name] = replace(solution, linear=linear)
        self._now[f"{name}.weight"] = linear.dequantize()
        if bias is not None:
            self._now[f"{name}.bias"] = bias / by_row
        return scales


def _rows_of(linear: QuantizedLinear, start: int, stop: int) -> QuantizedLinear:
    return replace(
        linear,
        codes=linear.codes[start:stop],
        scales=linear.scales[start:stop],
        zeros=linear.zeros[start:stop],
    )
