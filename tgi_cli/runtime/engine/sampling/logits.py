"""The steps that change one sequence's logits or cut them down to candidates.

Each works on one row, so that a row's result can't depend on its neighbours in the batch;
`sampler.py` has their order. Ties at a cut are kept, so the result doesn't depend on how a sort
orders equal scores.

Shapes: V is the vocabulary, C the candidates that are left. Candidates are kept in ascending id
order. Top-p: Holtzman et al., arXiv:1904.09751. Min-p: Nguyen et al., arXiv:2407.01082. Typical:
Meister et al., arXiv:2202.00666. Repetition penalty: Keskar et al., CTRL, arXiv:1909.05858.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from tgi_cli.runtime.ipc.messages import TokenScore

_LARGEST = torch.finfo(torch.float32).max / 4  # what an extreme penalty gives, in place of infinity
_PARTIAL_SORT = 1024  # scores looked at before a cut by mass sorts everything
MAX_TIES = 64  # reported beyond the best N: a flat row ties from end to end


@dataclass(frozen=True, slots=True)
class Candidates:
    """Tokens that may be picked. `ids` None means the whole vocabulary."""

    logits: Tensor  # [C] float32; minus infinity: can't be picked
    ids: Tensor | None  # [C] int64, ascending

    def keep(self, mask: Tensor) -> Candidates:
        """Return those where `mask` [C] holds."""
        chosen = mask.nonzero().squeeze(-1)
        ids = chosen if self.ids is None else self.ids[chosen]
        return Candidates(self.logits[chosen], ids)

    def id_at(self, index: int) -> int:
        return index if self.ids is None else int(self.ids[index])


def apply_watermark(logits: Tensor, is_green: Tensor, delta: float) -> Tensor:
    """Add `delta` to the scores of the ids in `is_green` [V] bool."""
    return logits + delta * is_green


def apply_repetition_penalty(logits: Tensor, seen: Tensor, penalty: float) -> Tensor:
    """Divide positive scores of the ids in `seen` [V] bool by `penalty`, multiply negative ones."""
    penalty = _bounded(penalty)
    penalised = torch.where(logits < 0, logits * penalty, logits / penalty)
    return torch.where(seen, penalised, logits).clamp(-_LARGEST, _LARGEST)


def apply_frequency_penalty(logits: Tensor, output_counts: Tensor, penalty: float) -> Tensor:
    """Subtract `penalty` once for each time that an id stands in the output; counts are [V]."""
    return logits - penalty * output_counts


def apply_presence_penalty(logits: Tensor, output_counts: Tensor, penalty: float) -> Tensor:
    """Subtract `penalty` once from every id that stands in the output; counts are [V]."""
    return logits - penalty * (output_counts > 0)


def apply_bias(logits: Tensor, ids: Tensor, biases: Tensor) -> Tensor:
    """Add `biases` [B] to the scores of `ids` [B], which are distinct."""
    return logits.index_add(0, ids, biases)


def apply_bitmask(logits: Tensor, bitmask: Tensor) -> Tensor:
    """Rule out the ids whose bit isn't set.

    bitmask: [ceil(V / 32)] int32, the lowest bit of the first word is id 0; ids past its end are
    ruled out too.
    """
    bits = np.unpackbits(bitmask.numpy().view(np.uint8), bitorder="little")[: logits.numel()]
    allowed = np.zeros(logits.numel(), dtype=np.bool_)
    allowed[: bits.size] = bits
    return torch.where(torch.from_numpy(allowed), logits, -math.inf)


def forbid(logits: Tensor, ids: Tensor) -> Tensor:
    """Rule out `ids`, unless nothing else is left."""
    rest = logits.index_fill(0, ids, -math.inf)
    return rest if bool((rest > -math.inf).any()) else logits


def apply_temperature(logits: Tensor, temperature: float) -> Tensor:
    """Divide by `temperature`, counted from the highest score so that a tiny one can't overflow."""
    return (logits - logits.max()) / _bounded(temperature)


def _bounded(factor: float) -> float:
    """Return `factor` within what float32 can hold: beyond it, 0 / 0 wouldn't be a number."""
    return min(max(factor, 1e-37), 1e37)


def top_k(candidates: Candidates, k: int) -> Candidates:
    """Keep the `k` highest scores and those equal to the lowest of them."""
    if k >= candidates.logits.numel():
        return candidates
    threshold = torch.topk(candidates.logits, k).values[-1]
    return candidates.keep(candidates.logits >= threshold)


def top_p(candidates: Candidates, p: float) -> Candidates:
    """Keep the smallest set of the highest scores whose probability reaches `p`."""
    probabilities = torch.softmax(candidates.logits.double(), dim=-1)

    def highest(count: int) -> tuple[Tensor, Tensor]:
        values = torch.topk(probabilities, count).values
        return values, values

    return candidates.keep(probabilities >= _reaching(highest, probabilities.numel(), p))


def min_p(candidates: Candidates, share: float) -> Candidates:
    """Keep the tokens that have at least `share` of the best one's probability."""
    logits = candidates.logits
    return candidates.keep(logits >= logits.max() + math.log(share))


def typical_p(candidates: Candidates, p: float) -> Candidates:
    """Keep the tokens whose surprise is nearest to the row's entropy, up to probability `p`."""
    logprobs = torch.log_softmax(candidates.logits.double(), dim=-1)
    probabilities = logprobs.exp()
    # NumPy adds in one order whatever the number of threads.
    entropy = -float((probabilities * logprobs).nan_to_num(0.0).numpy().sum())
    distance = (-logprobs - entropy).abs()

    def nearest(count: int) -> tuple[Tensor, Tensor]:
        values, order = torch.topk(distance, count, largest=False)
        return values, probabilities[order]

    return candidates.keep(distance <= _reaching(nearest, distance.numel(), p))


def _reaching(best: Callable[[int], tuple[Tensor, Tensor]], size: int, p: float) -> Tensor:
    """Return the key at which the best of `size` tokens together reach the probability `p`.

    `best(count)` returns the keys of that many, best first, and their probabilities. Nearly always
    the cut falls among the first few; only a flat row needs all of them in order.
    """
    keys, probabilities = best(min(_PARTIAL_SORT, size))
    mass = torch.cumsum(probabilities, dim=-1)
    if mass[-1] < p and keys.numel() < size:
        keys, probabilities = best(size)
        mass = torch.cumsum(probabilities, dim=-1)
    # The first place at which the mass reaches p is the last one kept.
    return keys[min(int((mass < p).sum()), keys.numel() - 1)]


@dataclass(frozen=True, slots=True)
class Picked:
    token_id: int
    logprob: float
    best_logprob: float  # of the likeliest candidate


def pick(candidates: Candidates, uniform: float) -> Picked:
    """Draw a token by inverse transform in ascending id order; `uniform` is in [0, 1)."""
    scores = candidates.logits.double()
    scores -= scores.max()
    weights = scores.exp()
    mass = torch.cumsum(weights, dim=-1)
    total = float(mass[-1])
    index = int(torch.searchsorted(mass, uniform * total, right=True))
    index = min(index, weights.numel() - 1)
    while index > 0 and weights[index] == 0:  # rounding led past the last possible token
        index -= 1
    best_logprob = -math.log(total)
    return Picked(candidates.id_at(index), best_logprob + float(scores[index]), best_logprob)


def best_scores(candidates: Candidates, count: int, best_logprob: float) -> list[TokenScore]:
    """Return the `count` best and those that tie with the last, best first, then by id.

    At most `MAX_TIES` more than `count`; never one that can't be picked. `best_logprob` is the
    log-probability of the best, from which the others' follow.
    """
    logits = candidates.logits
    highest = torch.topk(logits, min(count, logits.numel())).values
    ties = (logits >= highest[-1]) & (logits > -math.inf)
    indices = ties.nonzero().squeeze(-1)
    scores = logits[indices]
    order = torch.sort(scores, descending=True, stable=True).indices[: count + MAX_TIES]
    logprobs = (best_logprob + (scores[order].double() - float(highest[0]))).tolist()
    ids = indices[order] if candidates.ids is None else candidates.ids[indices[order]]
    return [TokenScore(*pair) for pair in zip(ids.tolist(), logprobs, strict=True)]
