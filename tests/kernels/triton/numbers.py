"""Inputs that catch bugs, and what counts as equal."""

from __future__ import annotations

import torch
from torch import Tensor

DTYPES = [torch.float16, torch.bfloat16]


def randn(*shape: int, dtype: torch.dtype = torch.float32, scale: float = 1.0, seed: int = 0):
    """Return `scale` times normal numbers."""
    generator = torch.Generator().manual_seed(seed + sum(shape))
    return (torch.randn(shape, generator=generator) * scale).to(dtype)


def nans(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    """Return a poisoned output: what isn't written stays NaN and fails `assert_near`."""
    return torch.full(shape, float("nan"), dtype=dtype)


def assert_near(actual: Tensor, expected: Tensor, eps: float = 1.0) -> None:
    """Hold `actual` against `expected` fp64.

    An error is at most `eps` times the machine epsilon of actual's type times |expected| plus the
    mean of |expected|: 1 for products and elementwise operations, 2 for attention.
    """
    assert actual.shape == expected.shape, (actual.shape, expected.shape)
    magnitude = expected.abs()
    allowed = eps * torch.finfo(actual.dtype).eps * (magnitude + magnitude.mean())
    error = (actual.double() - expected).abs()
    assert bool((error <= allowed).all()), f"{(error / allowed).nan_to_num(1e9).max():.3g} times"
