"""The slow twins of `route` and `sort_by_expert`."""

from __future__ import annotations

import torch
from torch import Tensor


def route(logits: Tensor, top_k: int, *, renormalise: bool) -> tuple[Tensor, Tensor]:
    scores = torch.softmax(logits if logits.dtype == torch.float64 else logits.float(), -1)
    experts = torch.sort(logits, dim=-1, descending=True, stable=True).indices[:, :top_k]
    weights = scores.gather(1, experts)
    if renormalise:
        weights = weights / weights.sum(-1, keepdim=True)
    return weights, experts.int()


def sort_by_expert(experts: list[int], rows: int) -> tuple[list[list[int]], list[int]]:
    """Return the pairs of each tile, and its expert."""
    pairs, of_tiles = [], []
    for expert in sorted({expert for expert in experts if expert >= 0}):
        mine = [pair for pair, each in enumerate(experts) if each == expert]
        tiles = [mine[begin : begin + rows] for begin in range(0, len(mine), rows)]
        pairs += tiles
        of_tiles += [expert] * len(tiles)
    return pairs, of_tiles
