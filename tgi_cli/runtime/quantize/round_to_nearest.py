"""Plain rounding: each group's grid spans its range, and nothing is known of the inputs.

The baseline of every other method, and all that int8 per channel needs.
"""

from __future__ import annotations

from tgi_cli.runtime.quantize.grid import Grid, round_to_grid
from tgi_cli.runtime.quantize.solver import (
    PROJECTIONS,
    Activations,
    LayerSolution,
    LayerTensors,
    OnProjection,
    Solution,
    other_tensors,
)
from tgi_cli.runtime.quantize.statistics import check_finite


class RoundToNearest:
    needs_calibration = False
    needs_original = False

    def __init__(self, grid: Grid) -> None:
        self._grid = grid

    def solve_layer(
        self, layer: LayerTensors, activations: Activations | None, on_projection: OnProjection
    ) -> LayerSolution:
        solutions = {}
        for name in PROJECTIONS:
            weight = layer[f"{name}.weight"]
            check_finite(weight, f"{name}.weight")
            solutions[name] = Solution(round_to_grid(weight, self._grid), None, None, None)
            on_projection(name)
        return LayerSolution(solutions, other_tensors(layer))
