"""Rows of scores of every kind that a sampler meets, V on both sides of a chunk of 4096."""

from __future__ import annotations

import torch
from torch import Tensor

from tests.kernels.triton.numbers import randn
from tgi_cli.kernels.best_token.kernel import best_token
from tgi_cli.kernels.sampling.settings import OFF, Field
from tgi_cli.kernels.score_cuts.kernel import Rows

INFINITY = float("inf")
VOCAB_SIZES = [1, 97, 4097]


def scores_of_every_kind(vocab_size: int) -> Tensor:
    """Return [7, V]: normal, whole, flat, half ruled out, one token, wide, close together."""
    scores = randn(7, vocab_size, scale=3.0)
    scores[1] = scores[1].round()
    scores[2] = 1.25
    scores[3, vocab_size // 2 + 1 :] = -INFINITY
    scores[4] = -INFINITY
    scores[4, vocab_size // 3] = -3.0
    scores[5] *= 13
    scores[6] *= 1e-5
    return scores


def rows_of(logits: Tensor, **fields: float | list[float]) -> Rows:
    """Return rows that ask for `fields`, each the same for all or a list with one for each."""
    settings = torch.tensor([OFF] * len(logits), dtype=torch.float64)
    for name, value in fields.items():
        settings[:, Field[name]] = torch.tensor(value, dtype=torch.float64)
    return Rows(logits, settings, *best_token(logits))


def scaled(row: Tensor, temperature: float) -> Tensor:
    """Return a row's scores as cuts and draws take them: divided in fp32, then float64."""
    return ((row - row.max()) / temperature).double()
