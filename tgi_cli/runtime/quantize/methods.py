"""Which solver a method is."""

from __future__ import annotations

from typing import Literal

from tgi_cli.runtime.config.quantize.options import DEFAULT_DAMP
from tgi_cli.runtime.quantize.awq import ClippedRounding
from tgi_cli.runtime.quantize.calibrated import CalibratedSolver
from tgi_cli.runtime.quantize.forward import LayerForward
from tgi_cli.runtime.quantize.gptq import Gptq
from tgi_cli.runtime.quantize.grid import Grid
from tgi_cli.runtime.quantize.round_to_nearest import RoundToNearest
from tgi_cli.runtime.quantize.solver import LayerSolver

Method = Literal["awq", "gptq", "awq+gptq", "int8", "rtn"]


def layer_solver(
    method: Method,
    grid: Grid,
    forward: LayerForward,
    *,
    damping: float = DEFAULT_DAMP,
    true_order: bool = False,
) -> LayerSolver:
    """Return what solves one layer; `damping` and `true_order` (`desc_act`) are GPTQ's.

    GPTQ aims at the original's outputs and so keeps both streams of activations; AWQ alone, which
    can't make up for an error, keeps one.
    """
    if method in ("int8", "rtn"):
        return RoundToNearest(grid)
    if method == "awq":
        return CalibratedSolver(
            forward, grid, ClippedRounding(), scales_inputs=True, needs_original=False
        )
    return CalibratedSolver(
        forward,
        grid,
        Gptq(damping, true_order=true_order),
        scales_inputs=method == "awq+gptq",
        needs_original=True,
    )
