"""Solve a model layer by layer, each on what the stored layers before it give.

In memory are one layer and its inputs. A layer's inputs are always computed from the files of the
layers before it, whether they were solved now or by a run that was killed: so going on gives the
same bits as never having stopped.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

import torch

from tgi_cli.errors import CorruptModelError
from tgi_cli.runtime.config.quantize import QuantizeRecipe
from tgi_cli.runtime.config.tensor_names import EMBEDDING
from tgi_cli.runtime.models.weights import TORCH_DTYPES
from tgi_cli.runtime.quantize.forward import LayerForward, map_windows
from tgi_cli.runtime.quantize.layouts import pack_projection, read_layer
from tgi_cli.runtime.quantize.progress import LayerClock, QuantizeScreen
from tgi_cli.runtime.quantize.solver import TOKENS_TOGETHER, Activations, LayerSolution, LayerSolver
from tgi_cli.runtime.quantize.source import Source, layer_prefix
from tgi_cli.runtime.quantize.work_folder import LayerRecord, ProjectionRecord, WorkFolder

if TYPE_CHECKING:
    from torch import Tensor

MakeSolver = Callable[[LayerForward], LayerSolver]


class LayerLoop:
    """`windows` [S, L] are the calibration's token ids, or None if nothing is calibrated."""

    def __init__(
        self,
        source: Source,
        recipe: QuantizeRecipe,
        work: WorkFolder,
        windows: Tensor | None,
        make_solver: MakeSolver,
        screen: QuantizeScreen,
    ) -> None:
        self._source = source
        self._recipe = recipe
        self._work = work
        self._windows = windows
        self._make_solver = make_solver
        self._screen = screen
        self._device = torch.device(recipe.device)
        length = recipe.sequence_length
        self._chunk = max(1, TOKENS_TOGETHER // length)

    @torch.inference_mode()
    def run(self) -> list[LayerRecord]:
        """Return the records of all layers; those that are stored already aren't solved again."""
        total = self._source.config.num_layers
        records = [self._work.record(index) for index in range(total)]
        num_done = total - records.count(None)
        if num_done:
            self._screen.say(f"{num_done} of {total} layers are there from the run before")
        missing = [index for index, record in enumerate(records) if record is None]
        activations = self._embedded() if missing and self._windows is not None else None
        clock = LayerClock(len(missing))
        for index in range(missing[-1] + 1 if missing else 0):
            forward = self._forward(index)
            layer = self._layer(index)
            if records[index] is None:
                records[index] = self._solve(index, layer, forward, activations)
                self._screen.advance(index + 1, total, clock.left_s())
            elif activations is not None and activations.original is not None:
                self._map(forward, layer, activations.original)
            if activations is not None and index < missing[-1]:
                stored = read_layer(self._work.tensors(index), self._recipe)
                self._map(forward, stored, activations.quantized)
        return [record for record in records if record is not None]

    def _embedded(self) -> Activations:
        assert self._windows is not None
        embedding = self._source.stored(EMBEDDING)
        embedded = embedding[self._windows].float().to(self._device)
        solver = self._make_solver(self._forward(0))
        return Activations(embedded, keeps_original=solver.needs_original)

    def _forward(self, index: int) -> LayerForward:
        length = self._recipe.sequence_length
        return LayerForward(self._source.config, length, index, self._device)

    def _layer(self, index: int) -> dict[str, Tensor]:
        layer = self._source.layer(index)
        for name, tensor in layer.items():
            if not bool(tensor.isfinite().all()):
                raise CorruptModelError(
                    f"Tensor {layer_prefix(index)}{name} has numbers that aren't finite.",
                    hint="Download the model again.",
                )
        return {name: tensor.to(self._device) for name, tensor in layer.items()}

    def _solve(
        self,
        index: int,
        layer: dict[str, Tensor],
        forward: LayerForward,
        activations: Activations | None,
    ) -> LayerRecord:
        def on_projection(name: str) -> None:
            self._screen.step(f"layer {index}, {name}")

        solution = self._make_solver(forward).solve_layer(layer, activations, on_projection)
        tensors = self._stored_tensors(index, solution)
        served = read_layer(tensors, self._recipe)
        for name, tensor in solution.dequantized().items():
            assert torch.equal(served[name], tensor.cpu()), f"{name} isn't what was solved"
        records = [
            ProjectionRecord(
                name=name,
                loss=solved.loss,
                relative_loss=solved.relative_loss,
                damping=solved.damping,
            )
            for name, solved in solution.solutions.items()
        ]
        return self._work.store(index, tensors, records)

    def _stored_tensors(self, index: int, solution: LayerSolution) -> dict[str, Tensor]:
        tensors: dict[str, Tensor] = {}
        for name, solved in solution.solutions.items():
            packed = pack_projection(solved.linear, self._recipe)
            tensors |= {f"{name}.{suffix}": tensor for suffix, tensor in packed.items()}
        for name, tensor in solution.tensors.items():
            dtype = TORCH_DTYPES[self._source.dtype_of(layer_prefix(index) + name)]
            tensors[name] = tensor.to("cpu", dtype)
        return tensors

    def _map(self, forward: LayerForward, layer: dict[str, Tensor], x: Tensor) -> None:
        """Replace the inputs of `layer` by its outputs."""
        layer = {name: tensor.to(self._device) for name, tensor in layer.items()}
        map_windows(partial(forward, layer), x, x, self._chunk)
