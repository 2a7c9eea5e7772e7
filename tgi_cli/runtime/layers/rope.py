"""Rotary tables: cosine and sine of every position, with the scalings of the Llama family.

The frequencies follow transformers step by step in fp32, since a position of 8,000 magnifies a
difference in the last bit. Linear: Chen et al., arXiv:2306.15595. YaRN: Peng et al.,
arXiv:2309.00071. Llama 3: Meta's reference code. Dynamic NTK scales with a request's length and
is only reached past the trained length, so below it, where this server keeps its requests, it
changes nothing.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from tgi_cli.runtime.config.model_config import RopeScaling


class RotaryTable:
    def __init__(
        self,
        head_dim: int,
        max_positions: int,
        theta: float,
        scaling: RopeScaling | None,
        device: torch.device | None = None,
    ) -> None:
        frequencies, magnitude = _frequencies(head_dim, theta, scaling)
        angles = torch.arange(max_positions, dtype=torch.float32)[:, None] * frequencies
        cos, sin = angles.cos() * magnitude, angles.sin() * magnitude
        self._cos = torch.cat((cos, cos), dim=-1).to(device)  # [P, D]
        self._signed_sin = torch.cat((-sin, sin), dim=-1).to(device)  # [P, D]

    def at(self, positions: Tensor) -> tuple[Tensor, Tensor]:
        """Return cos and signed sin, [T, 1, D] each, for `positions` [T]."""
        return self._cos[positions][:, None], self._signed_sin[positions][:, None]


def _frequencies(head_dim: int, theta: float, scaling: RopeScaling | None) -> tuple[Tensor, float]:
    """Return [D/2] radians per token, and the factor on cosine and sine."""
    exponents = torch.arange(0, head_dim, 2, dtype=torch.int64).float() / head_dim
    frequencies = 1.0 / (theta**exponents)
    if scaling is None or scaling.kind == "dynamic":
        return frequencies, 1.0
    if scaling.kind == "divisors":
        return frequencies / torch.tensor(scaling.divisors), 1.0
    if scaling.kind == "linear":
        return frequencies / scaling.factor, 1.0
    if scaling.kind == "llama3":
        return _llama3(frequencies, scaling), 1.0
    return _yarn(frequencies, head_dim, theta, scaling)


def _llama3(frequencies: Tensor, scaling: RopeScaling) -> Tensor:
    assert scaling.original_max_position_embeddings is not None
    trained = scaling.original_max_position_embeddings
    wavelengths = 2 * math.pi / frequencies
    smooth = (trained / wavelengths - scaling.low_freq_factor) / (
        scaling.high_freq_factor - scaling.low_freq_factor
    )
    blended = (1 - smooth) * frequencies / scaling.factor + smooth * frequencies
    is_low = wavelengths > trained / scaling.low_freq_factor
    is_high = wavelengths < trained / scaling.high_freq_factor
    scaled = torch.where(is_low, frequencies / scaling.factor, frequencies)
    return torch.where(~is_low & ~is_high, blended, scaled)


def _yarn(
    frequencies: Tensor, head_dim: int, theta: float, scaling: RopeScaling
) -> tuple[Tensor, float]:
    assert scaling.original_max_position_embeddings is not None
    trained = scaling.original_max_position_embeddings

    def dimension(rotations: float) -> float:
        turns = trained / (rotations * 2 * math.pi)
        return head_dim * math.log(turns) / (2 * math.log(theta))

    low = max(math.floor(dimension(scaling.beta_fast)), 0)
    high = min(math.ceil(dimension(scaling.beta_slow)), head_dim - 1)
    steps = torch.arange(head_dim // 2, dtype=torch.float32)
    ramp = ((steps - low) / max(high - low, 0.001)).clamp(0, 1)
    scaled = frequencies / scaling.factor * ramp + frequencies * (1 - ramp)
    magnitude = scaling.attention_factor
    if magnitude is None:
        magnitude = 0.1 * math.log(scaling.factor) + 1.0 if scaling.factor > 1 else 1.0
    return scaled, magnitude
