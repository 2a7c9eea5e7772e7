"""The grids that weights are rounded to, and a weight that lies on one.

A weight row is cut into groups of input features; each group of each row has one scale and one
zero point: w = (code - zero) * scale. N output features, K input features, G groups of a row.

Scales are rounded to fp16 before codes are chosen, since files store fp16: what the solver measured
is then what every reader computes. Zero points start at 1 because AutoGPTQ's first packing stores
zero - 1 and can't hold the code 0.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from tgi_cli.errors import ArgumentError

_SMALLEST_SCALE = 2.0**-24  # fp16's smallest number: a group of zeros needs a scale that isn't 0
_LARGEST_SCALE = 65504.0  # fp16's largest
_USUAL_GROUP_SIZES = (128, 64, 32)


@dataclass(frozen=True, slots=True)
class Grid:
    """A kind of grid.

    `group_size` -1 is one group over all of K; a symmetric grid has its zero in the middle.
    """

    bits: int
    group_size: int
    symmetric: bool

    @property
    def max_code(self) -> int:
        return (1 << self.bits) - 1

    @property
    def middle(self) -> int:
        return 1 << (self.bits - 1)

    def width(self, num_in: int) -> int:
        """Return how many of `num_in` input features share a scale."""
        return num_in if self.group_size == -1 else self.group_size

    def check(self, widths: dict[str, int]) -> None:
        """Check that groups fill each K of `widths`, which are by the projections' names.

        Raises:
            ArgumentError: names the projection, and the largest usual size that divides every K.
        """
        if not 2 <= self.bits <= 8:
            raise ArgumentError(f"--bits {self.bits}: a grid has 2 to 8 bits.")
        if self.group_size == -1:
            return
        if self.group_size < 1:
            raise ArgumentError(
                f"--group-size {self.group_size}: give a number of input features, or -1 for one "
                "group over all of them."
            )
        for name, num_in in widths.items():
            if num_in % self.group_size:
                fitting = [
                    size
                    for size in _USUAL_GROUP_SIZES
                    if all(width % size == 0 for width in widths.values())
                ]
                raise ArgumentError(
                    f"--group-size {self.group_size} doesn't divide the {num_in} input features of "
                    f"{name}.",
                    hint=f"Use --group-size {fitting[0] if fitting else -1}.",
                )

    def fit(self, weight: Tensor) -> tuple[Tensor, Tensor]:
        """Return scales (fp16) and zeros (uint8), [N, G], that span `weight` [N, K] fp32."""
        groups = weight.unflatten(1, (-1, self.width(weight.shape[1])))
        if self.symmetric:
            reach = groups.abs().amax(-1)
            return self.symmetric_scales(reach), torch.full_like(
                reach, self.middle, dtype=torch.uint8
            )
        return self.asymmetric_scales(groups.amin(-1), groups.amax(-1))

    def symmetric_scales(self, reach: Tensor) -> Tensor:
        """Return fp16 scales of grids from -`reach` to `reach` (any shape).

        Half a step of each end is beyond the grid: that is nearer than a step lost at one end.
        """
        return _as_fp16(reach * (2 / self.max_code))

    def asymmetric_scales(self, low: Tensor, high: Tensor) -> tuple[Tensor, Tensor]:
        """Return fp16 scales and uint8 zeros of grids from `low` to `high` (any shape), with 0."""
        high = high.clamp(min=0)
        low = torch.minimum(low, -high / (self.max_code - 1))  # a zero point of at least 1
        scales = _as_fp16((high - low) / self.max_code)
        zeros = (-low / scales.float()).round().clamp(1, self.max_code)
        return scales, zeros.to(torch.uint8)

    def round(self, weight: Tensor, scales: Tensor, zeros: Tensor) -> Tensor:
        """Return the codes (fp32) nearest to `weight`, all of one shape; half goes to even."""
        return (weight / scales.float()).round_().add_(zeros).clamp_(0, self.max_code)


def _as_fp16(scales: Tensor) -> Tensor:
    return scales.clamp(_SMALLEST_SCALE, _LARGEST_SCALE).half()


@dataclass(frozen=True, slots=True)
class QuantizedLinear:
    """A weight [N, K] on a grid.

    codes: uint8 [N, K]; scales: fp16 [N, G]; zeros: uint8 [N, G]. `group_index` (int32 [K]) says
    which group each input feature is in; None: K / G neighbours share one.
    """

    codes: Tensor
    scales: Tensor
    zeros: Tensor
    bits: int
    group_index: Tensor | None = None

    def dequantize(self) -> Tensor:
        """Return (code - zero) * scale, fp32 [N, K]: exact, as 8 bits times 11 fit in 24."""
        scales, zeros = self.per_feature(self.scales), self.per_feature(self.zeros)
        return (self.codes.float() - zeros.float()) * scales.float()

    def per_feature(self, by_group: Tensor) -> Tensor:
        """Return [N, K] of what is given by group, [N, G]."""
        if self.group_index is not None:
            return by_group[:, self.group_index.long()]
        return by_group.repeat_interleave(self.codes.shape[1] // by_group.shape[1], 1)


def round_to_grid(weight: Tensor, grid: Grid) -> QuantizedLinear:
    """Round `weight` [N, K] fp32 to the grid that spans each of its groups."""
    scales, zeros = grid.fit(weight)
    width = grid.width(weight.shape[1])
    codes = grid.round(
        weight, scales.repeat_interleave(width, 1), zeros.repeat_interleave(width, 1)
    )
    return QuantizedLinear(codes.to(torch.uint8), scales, zeros, grid.bits)
