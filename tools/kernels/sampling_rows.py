"""Rows of scores with what they ask for, shared by the workloads of the sampler's operations."""

from __future__ import annotations

import torch
from torch import Tensor

from tgi_cli.kernels.best_token.kernel import best_token
from tgi_cli.kernels.sampling.settings import OFF, Field
from tgi_cli.kernels.score_cuts.kernel import Rows
from tools.kernels.workload import randn


def rows(num_rows: int, vocab_size: int, device: str, **fields: float) -> Rows:
    """Return random rows that all ask for the same."""
    logits = randn(num_rows, vocab_size, device=device, scale=3.0)
    settings = torch.tensor([OFF] * num_rows, dtype=torch.float64)
    for name, value in fields.items():
        settings[:, Field[name]] = value
    return Rows(logits, settings.to(device), *best_token(logits))


def scaled(row: Tensor, temperature: float) -> Tensor:
    """Return scores as the cuts and the draw take them, in float64."""
    return ((row - row.max()) / temperature).double()
