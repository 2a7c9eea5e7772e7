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

from tgi_cli.runtime.config.quantize.options import DEFAULT_DAMP
from tgi_cli.runtime.quantize.awq import ToUsable, search_scales
from tgi_cli.runtime.quantize.feedback import corrected
from tgi_cli.runtime.quantize.folds import divide_rows, usable_for_norm, usable_for_rows
from tgi_cli.runtime.quantize.forward import LayerForward, project
from tgi_cli.runtime.quantize.grid import Grid, QuantizedLinear
from tgi_cli.runtime.quantize.solver import (
    TOKENS_TOGETHER,
    Activations,
    LayerSolution,
    LayerTensors,
    OnProjection,
    Rounder,
    Solution,
    other_tensors,
)
from tgi_cli.runtime.quantize.statistics import InputStatistics, check_finite

_QKV = ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj")
_OUT = ("self_attn.o_proj",)
_GATE_UP = ("mlp.gate_proj", "mlp.up_proj")
_DOWN = ("mlp.down_proj",)

Part = Callable[[LayerTensors, Tensor], Tensor]


@dataclass(frozen=True, slots=True)
class CalibratedSolver:
    """`scales_inputs`: search and fold AWQ's scales; `needs_original`: aim at the original.

    The original's half of the layer is computed once: what the aim needs on its way is the original
    stream's next input in the end.
    """

    forward: LayerForward
    grid: Grid
    rounder: Rounder
    scales_inputs: bool
    needs_original: bool
    damping: float = DEFAULT_DAMP  # of the aim
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
        self._original = activations.original if solver.needs_original else None  # moves on
        self._attended: list[Tensor] = []  # what o reads, by chunk, until it is rounded
        self._chunk = max(1, TOKENS_TOGETHER // self._x.shape[1])

    def run(self) -> LayerSolution:
        forward, heads = self._forward, self._forward.heads
        self._solve(_QKV, forward.attention_input, norm="input_layernorm.weight")

        def attend(layer: LayerTensors, x: Tensor) -> Tensor:
            return forward.attend(layer, forward.attention_input(layer, x))

        shares_values = heads.num_heads != heads.num_kv_heads
        scales = self._solve(_OUT, attend, rows=None if shares_values else "self_attn.v_proj")
        self._enter_feed_forward(scales)
        self._solve(_GATE_UP, forward.feed_forward_input, norm="post_attention_layernorm.weight")

        def gate(layer: LayerTensors, x: Tensor) -> Tensor:
            return forward.gate(layer, forward.feed_forward_input(layer, x))

        self._solve(_DOWN, gate, rows="mlp.up_proj")
        return LayerSolution(self._solutions, other_tensors(self._now))

    def _enter_feed_forward(self, scales: Tensor | None) -> None:
        """Go on with the residual stream between the layer's halves; the layer's input stays.

        `scales` went out of what o reads since that was computed.
        """
        residual = torch.empty_like(self._x)
        for start in reversed(range(0, len(self._x), self._chunk)):
            windows = slice(start, start + self._chunk)
            attended = self._attended.pop()
            if scales is not None:
                attended /= scales
            residual[windows] = self._x[windows] + project(self._now, _OUT[0], attended)
        self._x = residual

    def _solve(
        self,
        names: tuple[str, ...],
        part: Part,
        *,
        norm: str | None = None,
        rows: str | None = None,
    ) -> Tensor | None:
        """Round the projections `names`, whose input is `part` of the layer.

        Their inputs' scales can go into the norm `norm`, or into the projection `rows`; returned
        are those that went there.
        """
        solver = self._solver
        stacked = torch.cat([self._layer[f"{name}.weight"] for name in names])
        check_finite(stacked, f"Layer {self._forward.index}, weights of {names[0]}")
        statistics = self._collect(names, stacked.shape[1], part)
        weight = corrected(stacked, statistics, solver.damping)
        gram = statistics.gram
        scales = None
        if solver.scales_inputs:
            scales = self._move_scales(weight, statistics, norm, rows)
        if scales is not None:
            weight = weight * scales
            gram = gram / scales / scales[:, None]
        linear, damping = solver.rounder.round(weight, gram, solver.grid)
        start = 0
        for name in names:
            stop = start + len(self._layer[f"{name}.weight"])
            self._keep(name, _rows_of(linear, start, stop), weight[start:stop], gram, damping)
            start = stop
        return scales

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

    def _collect(self, names: tuple[str, ...], num_in: int, part: Part) -> InputStatistics:
        """Run `part` over all windows; what adds to the residual stream moves the original on."""
        statistics = InputStatistics(num_in, self._x.device)
        original = self._original
        adds = names in (_OUT, _DOWN)
        for start in range(0, len(self._x), self._chunk):
            windows = slice(start, start + self._chunk)
            x = self._x[windows]
            inputs = part(self._now, x)
            if names == _OUT:
                self._attended.append(inputs)
            if original is None:
                statistics.add(inputs)
                continue
            there = original[windows]
            wanted = part(self._layer, there)
            statistics.add(inputs, wanted, there - x if adds else None)
            if adds:
                there += project(self._layer, names[0], wanted)
        check_finite(statistics.gram, f"Layer {self._forward.index}, inputs of {names[0]}")
        return statistics

    def _move_scales(
        self, weight: Tensor, statistics: InputStatistics, norm: str | None, rows: str | None
    ) -> Tensor | None:
        """Choose scales [K], fold them into what makes the inputs, and return them."""
        solver = self._solver
        if norm is None and rows is None:
            return None

        def search(to_usable: ToUsable) -> Tensor:
            cost = solver.rounder.cost(statistics.gram)
            return search_scales(weight, statistics.magnitude, cost, solver.grid, to_usable)

        if norm is not None:
            old = self._now[norm]
            scales = search(lambda wanted: usable_for_norm(wanted, old)[0])
            scales, self._now[norm] = usable_for_norm(scales, old)
            return scales
        assert rows is not None
        solution, bias = self._solutions[rows], self._now.get(f"{rows}.bias")
        scales = search(lambda wanted: usable_for_rows(wanted, solution.linear, bias))
        linear = divide_rows(scales, solution.linear)
        self._solutions[rows] = replace(solution, linear=linear)
        self._now[f"{rows}.weight"] = linear.dequantize()
        if bias is not None:
            self._now[f"{rows}.bias"] = bias / scales
        return scales


def _rows_of(linear: QuantizedLinear, start: int, stop: int) -> QuantizedLinear:
    return replace(
        linear,
        codes=linear.codes[start:stop],
        scales=linear.scales[start:stop],
        zeros=linear.zeros[start:stop],
    )
