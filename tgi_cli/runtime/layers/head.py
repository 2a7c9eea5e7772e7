"""The projection to scores of the vocabulary, and the likeliest token of each row."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from tgi_cli.kernels import best_token
from tgi_cli.kernels.linear import Codes, multiply
from tgi_cli.runtime.layers.gpu_linear import GpuProjection
from tgi_cli.runtime.layers.linear import LinearMethod, Projection
from tgi_cli.runtime.layers.placement import Placement


@dataclass(frozen=True, slots=True)
class Scores:
    """A row for each of N next tokens. Valid until the head's next call."""

    logits: Tensor  # [N, V] fp32
    best_ids: Tensor  # [N] int64, the first of the highest
    best_logprobs: Tensor  # [N] fp32, NaN where a row isn't finite

    @classmethod
    def of(cls, logits: Tensor) -> Scores:
        return cls(logits, *best_token.best_token(logits))


class OutputHead(LinearMethod, Protocol):
    """Gives fp32 numbers, valid until the next call."""

    def scores(self, x: Tensor) -> Scores:
        """Return `x` [N, K] projected to [N, V], and the best of each row."""
        ...


def output_head(weight: Tensor | Codes, placement: Placement) -> OutputHead:
    """Pack the head's weight [V, K] for the kernels of `placement`."""
    if placement.uses_triton:
        return GpuHead(weight, placement=placement, out_dtype=torch.float32)
    return CpuHead(weight)


class CpuHead(Projection):
    """One whose output lies where the last one lay.

    Scores are megabytes, and fresh memory for each step costs more than a tenth of it.
    """

    def __init__(self, weight: Tensor | Codes) -> None:
        super().__init__(weight)
        self._out = torch.empty(0, self.packed.num_out_features)

    def __call__(self, x: Tensor) -> Tensor:
        out = self._room(x.shape[0])
        multiply(x, self.packed, out=out)
        return out

    def scores(self, x: Tensor) -> Scores:
        out = self._room(x.shape[0])
        return Scores(out, *best_token.multiply(x, self.packed, out=out))

    def _room(self, num_rows: int) -> Tensor:
        if num_rows > len(self._out):
            self._out = torch.empty(num_rows, self.packed.num_out_features)
        return self._out[:num_rows]


class GpuHead(GpuProjection):
    def scores(self, x: Tensor) -> Scores:
        return Scores.of(self(x))
