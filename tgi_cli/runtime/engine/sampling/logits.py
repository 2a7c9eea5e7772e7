"""The steps that change one sequence's logits or cut them down to candidates.

Each works on one row, so that a row's result can't depend on its neighbours in the batch. In
order: repetition penalty, frequency penalty, temperature, top-k, top-p, typical-p
(spec/http-api.md section 17). Ties at a cut are kept, so the result doesn't depend on how a sort
orders equal scores.

Shapes: V is the vocabulary, C the candidates that are left. Candidates are kept in ascending id
order. Top-p: Holtzman et al., arXiv:1904.09751. Typical: Meister et al., arXiv:2202.00666.
Repetition penalty: Keskar et al., CTRL, arXiv:1909.05858.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

_LARGEST = torch.finfo(torch.float32).max / 4  # what an extreme penalty gives, in place of infinity
_PARTIAL_SORT = 1024  # scores looked at before a top-p cut sorts everything


@dataclass(frozen=True, slots=True)
class Candidates:
    """Tokens that may be picked. `ids` None means the whole vocabulary."""

    logits: Tensor  # [C] float32
    ids: Tensor | None  # [C] int64, ascending

    def keep(self, mask: Tensor) -> Candidates:
        """Return those where `mask` [C] holds."""
        chosen = mask.nonzero().squeeze(-1)
        ids = chosen if self.ids is None else self.ids[chosen]
        return Candidates(self.logits[chosen], ids)

    def id_at(self, index: int) -> int:
        return index if self.ids is None else int(self.ids[index])


def apply_repetition_penalty(logits: Tensor, seen: Tensor, penalty: float) -> Tensor:
    """Divide positive scores of the ids in `seen` [V] bool by `penalty`, multiply negative ones."""
    penalised = torch.where(logits < 0, logits * penalty, logits / penalty)
    return torch.where(seen, penalised, logits).clamp(-_LARGEST, _LARGEST)


def apply_frequency_penalty(logits: Tensor, output_counts: Tensor, penalty: float) -> Tensor:
    """Subtract `penalty` once for each time that an id stands in the output; counts are [V]."""
    return logits - penalty * output_counts


def apply_temperature(logits: Tensor, temperature: float) -> Tensor:
    """Divide by `temperature`, counted from the highest score so that a tiny one can't overflow."""
    return (logits - logits.max()) / temperature


def top_k(candidates: Candidates, k: int) -> Candidates:
    """Keep the `k` highest scores and those equal to the lowest of them."""
    if k >= candidates.logits.numel():
        return candidates
    threshold = torch.topk(candidates.logits, k).values[-1]
    return candidates.keep(candidates.logits >= threshold)


def top_p(candidates: Candidates, p: float) -> Candidates:
    """Keep the smallest set of the highest scores whose probability reaches `p`."""
    probabilities = torch.softmax(candidates.logits.double(), dim=-1)
    size = probabilities.numel()
    # Nearly always the cut falls among the highest few; only a flat row needs the full sort.
    highest = torch.topk(probabilities, min(_PARTIAL_SORT, size)).values
    mass = torch.cumsum(highest, dim=-1)
    if mass[-1] < p and highest.numel() < size:
        highest = torch.sort(probabilities, descending=True).values
        mass = torch.cumsum(highest, dim=-1)
    # The first place at which the mass reaches p is the last one kept.
    last = min(int((mass < p).sum()), highest.numel() - 1)
    return candidates.keep(probabilities >= highest[last])


def typical_p(candidates: Candidates, p: float) -> Candidates:
    """Keep the tokens whose surprise is nearest to the row's entropy, up to probability `p`."""
    logprobs = torch.log_softmax(candidates.logits.double(), dim=-1)
    probabilities = logprobs.exp()
    entropy = -(probabilities * logprobs).nan_to_num(0.0).sum()
    distance = (-logprobs - entropy).abs()
    nearest, order = torch.sort(distance)
    mass = torch.cumsum(probabilities[order], dim=-1)
    last = min(int((mass < p).sum()), nearest.numel() - 1)
    return candidates.keep(distance <= nearest[last])


def pick(candidates: Candidates, uniform: float) -> tuple[int, float]:
    """Draw a token by inverse transform in ascending id order; return its id and log-probability.

    `uniform` is in [0, 1).
    """
    probabilities = torch.softmax(candidates.logits.double(), dim=-1)
    mass = torch.cumsum(probabilities, dim=-1)
    index = int(torch.searchsorted(mass, uniform * float(mass[-1]), right=True))
    index = min(index, probabilities.numel() - 1)
    while index > 0 and probabilities[index] == 0:  # rounding led past the last possible token
        index -= 1
    return candidates.id_at(index), float(probabilities[index].log())
