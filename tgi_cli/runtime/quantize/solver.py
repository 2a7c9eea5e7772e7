"""What solvers take and give.

`Rounder` rounds one weight, knowing the Gram matrix of its inputs. `LayerSolver` walks the
projections of one decoder layer: it decides what each is calibrated on, and may move scales from
one weight into another before any is rounded. Neither reads or writes files, and neither moves
from layer to layer: that is the pipeline's work.

A layer's tensors are named without their prefix: `self_attn.q_proj.weight`.
N output features, K input features; S windows of L tokens.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from tgi_cli.runtime.quantize.grid import Grid, QuantizedLinear

if TYPE_CHECKING:
    from torch import Tensor

LayerTensors = Mapping[str, "Tensor"]
OnProjection = Callable[[str], None]  # is given the name of each projection when it is done
Cost = Callable[["Tensor"], float]  # of an error [N, K], which it may use up

TOKENS_TOGETHER = 1024  # of a forward pass over calibration text, or one longer window
PROJECTIONS = (
    "self_attn.q_proj",
    "self_attn.k_proj",
    "self_attn.v_proj",
    "self_attn.o_proj",
    "mlp.gate_proj",
    "mlp.up_proj",
    "mlp.down_proj",
)  # what is quantised of each layer, in the order of use


@dataclass(frozen=True, slots=True)
class Solution:
    """A rounded weight Q, and how far it is from the weight W that it should be.

    `loss` is the mean over calibration tokens of |W x - Q x|^2, and `relative_loss` the same over
    |W x|^2; None without calibration. `damping` is what was added to the Gram matrix's diagonal,
    as a share of the diagonal's mean; None where the solver needs no inverse.
    """

    linear: QuantizedLinear
    loss: float | None
    relative_loss: float | None
    damping: float | None


class Rounder(Protocol):
    """Puts one weight on a grid."""

    def round(
        self, weight: Tensor, gram: Tensor, grid: Grid
    ) -> tuple[QuantizedLinear, float | None]:
        """Return `weight` [N, K] fp32 on `grid`, and the damping, as in `Solution`.

        `gram` [K, K] fp32 is the mean of x x^T over calibration tokens. Rows don't know of each
        other: any set of rows gives what each would give alone.
        """

    def cost(self, gram: Tensor) -> Cost:
        """Return what the error of plain rounding would come to, were it this rounder's error."""


@dataclass(frozen=True, slots=True)
class LayerSolution:
    """A layer after its solver.

    `solutions` are by projection, as in PROJECTIONS. `tensors` are all others of the layer, norms
    and biases, fp32: changed where a scale was folded into them, and then on the grid of the type
    that they are stored in.
    """

    solutions: dict[str, Solution]
    tensors: dict[str, Tensor]

    def dequantized(self) -> dict[str, Tensor]:
        """Return all tensors of the layer in fp32, as a reader of the checkpoint computes them."""
        weights = {
            f"{name}.weight": solution.linear.dequantize()
            for name, solution in self.solutions.items()
        }
        return {**self.tensors, **weights}


class Activations:
    """What goes into one decoder layer, for every calibration window; replaced layer by layer.

    quantized: fp32 [S, L, hidden], under the quantised layers before; overwritten in place.
    original: the same under the original layers; kept only for solvers that aim at the original.
    """

    def __init__(self, embedded: Tensor, *, keeps_original: bool) -> None:
        self.quantized = embedded
        self.original = embedded.clone() if keeps_original else None


class LayerSolver(Protocol):
    @property
    def needs_calibration(self) -> bool:
        """False: `activations` may be None."""

    @property
    def needs_original(self) -> bool:
        """Whether `activations` must keep the original stream."""

    def solve_layer(
        self, layer: LayerTensors, activations: Activations | None, on_projection: OnProjection
    ) -> LayerSolution:
        """Quantise one layer, given all of its tensors in fp32.

        `activations.quantized` is left alone: only what is stored decides how that goes on.
        `activations.original` becomes the original layer's output, which the solver needs anyway.

        Raises:
            CorruptModelError: a weight or an activation isn't finite; the message names it.
        """


def other_tensors(layer: LayerTensors) -> dict[str, Tensor]:
    """Return the tensors of `layer` that aren't rounded: norms and biases."""
    rounded = {f"{name}.weight" for name in PROJECTIONS}
    return {name: tensor for name, tensor in layer.items() if name not in rounded}
