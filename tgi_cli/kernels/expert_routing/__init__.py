"""Which experts a token goes to, and the tokens of each expert side by side.

    scores = softmax(logits)                              over all experts of a token
    experts, weights = the `top_k` highest scores, highest first; of equal ones the lower expert
    weights = weights / sum(weights)                      if they are renormalised

logits: [T, E] fp32, fp16 or bf16, a NaN counting as the lowest; weights: [T, top_k] fp32; experts:
[T, top_k] int32. A token's experts are numbered pairs: pair t * top_k + j is token t's j-th expert.
Triton (`kernel.py`) on a GPU, torch (`reference.py`) elsewhere. Nothing waits for the device.
Shazeer et al., Outrageously Large Neural Networks, arXiv:1701.06538.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from tgi_cli.kernels import devices

from . import reference


@dataclass(frozen=True, slots=True)
class ExpertTiles:
    """The pairs of a step, by expert, in tiles of rows of which none has two experts.

    As many tiles as there may be at most: those after the last have no expert.
    """

    pairs: Tensor  # [tiles * rows] int32, of an expert ascending; num_pairs where there is none
    experts: Tensor  # [tiles] int32, ascending; -1 where there is none
    rows: int
    num_pairs: int
    top_k: int


def route(logits: Tensor, top_k: int, *, renormalise: bool) -> tuple[Tensor, Tensor]:
    """Return the weights and the experts [T, top_k] of `logits` [T, E]."""
    assert 0 < top_k <= logits.shape[1], (top_k, logits.shape)
    if not devices.is_gpu(logits):
        return reference.route(logits, top_k, renormalise=renormalise)
    from . import kernel

    weights = torch.empty(len(logits), top_k, dtype=torch.float32, device=logits.device)
    experts = torch.empty(len(logits), top_k, dtype=torch.int32, device=logits.device)
    kernel.route(logits, weights, experts, renormalise=renormalise)
    return weights, experts


def max_tiles(num_pairs: int, num_experts: int, rows: int) -> int:
    """Return how many tiles pairs may need: each expert may leave one that isn't full."""
    return min(num_pairs, num_pairs // rows + min(num_experts, num_pairs))


def sort_by_expert(experts: Tensor, num_experts: int, rows: int) -> ExpertTiles:
    """Return the pairs of `experts` [T, top_k] int32, on a GPU, in tiles of `rows`.

    A pair whose expert is below 0 is in none.
    """
    from . import kernel

    num_tiles = max_tiles(experts.numel(), num_experts, rows)
    pairs = torch.empty(num_tiles * rows, dtype=torch.int32, device=experts.device)
    of_tiles = torch.empty(num_tiles, dtype=torch.int32, device=experts.device)
    if num_tiles:
        kernel.sort_by_expert(experts, num_experts, rows, pairs, of_tiles)
    return ExpertTiles(pairs, of_tiles, rows, experts.numel(), experts.shape[1])
