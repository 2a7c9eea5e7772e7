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
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from tgi_cli.kernels.penalties import LARGEST
from tgi_cli.kernels.top_scores import MAX_TIES
from tgi_cli.runtime.ipc.messages import TokenScore

_BINS_PER_NAT, _NUM_BINS = 64, 4096  # beyond 64 nats nothing has mass
_BLOCK = 64


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


def apply_repetition_penalty(logits: Tensor, seen_ids: Tensor, penalty: float) -> Tensor:
    """Divide positive scores of `seen_ids` [S], distinct, by `penalty`, multiply negative ones."""
    penalty = bounded(penalty)
    scores = logits[seen_ids]
    penalised = torch.where(scores < 0, scores * penalty, scores / penalty)
    return logits.index_copy(0, seen_ids, penalised.clamp(-LARGEST, LARGEST))


def apply_frequency_penalty(
    logits: Tensor, output_ids: Tensor, counts: Tensor, penalty: float
) -> Tensor:
    """Subtract `penalty` from `output_ids` [O], distinct, once for each of their `counts` [O]."""
    return logits.index_add(0, output_ids, -penalty * counts)


def apply_presence_penalty(logits: Tensor, output_ids: Tensor, penalty: float) -> Tensor:
    """Subtract `penalty` once from each of `output_ids` [O], which are distinct."""
    return logits.index_add(0, output_ids, torch.full(output_ids.shape, -penalty))


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
    # By NumPy: torch would share even this among threads, and wait for each where cores are few.
    return torch.from_numpy(np.where(allowed, logits.numpy(), np.float32(-np.inf)))


def forbid(logits: Tensor, ids: Tensor) -> Tensor:
    """Rule out `ids`, unless nothing else is left."""
    rest = logits.index_fill(0, ids, -math.inf)
    return rest if bool((rest > -math.inf).any()) else logits


def apply_temperature(logits: Tensor, temperature: float) -> Tensor:
    """Divide by `temperature`, counted from the highest score so that a tiny one can't overflow."""
    return (logits - logits.max()) / bounded(temperature)


def bounded(factor: float) -> float:
    """Return `factor` within what float32 can hold: beyond it, 0 / 0 wouldn't be a number."""
    return min(max(factor, 1e-37), 1e37)


def top_k(candidates: Candidates, k: int) -> Candidates:
    """Keep the `k` highest scores and those equal to the lowest of them."""
    if k >= candidates.logits.numel():
        return candidates
    return candidates.keep(candidates.logits >= _highest(candidates.logits, k)[-1])


def top_p(candidates: Candidates, p: float) -> Candidates:
    """Keep the smallest set of the highest scores whose probability reaches `p`."""
    logprobs = torch.log_softmax(candidates.logits.double(), dim=-1)
    surprise = -logprobs
    return candidates.keep(surprise <= _reaching(surprise, logprobs.exp(), p))


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
    return candidates.keep(distance <= _reaching(distance, probabilities, p))


def _reaching(keys: Tensor, probabilities: Tensor, p: float) -> Tensor:
    """Return the key up to which the tokens with the lowest reach the probability `p` together.

    keys, probabilities: [C] float64, keys not negative. The vocabulary isn't sorted: a histogram
    tells into which bin the mass falls, and only what lies in that one is.
    """
    bins = (keys * _BINS_PER_NAT).clamp_(max=_NUM_BINS - 1).long()
    mass = torch.cumsum(torch.bincount(bins, probabilities, _NUM_BINS), dim=-1)
    index = min(int((mass < p).sum()), _NUM_BINS - 1)
    before = float(mass[index - 1]) if index else 0.0
    inside = (bins == index).nonzero().squeeze(-1)
    if not len(inside):  # p is 1 but for rounding: all are needed
        return keys.max()
    ordered, order = torch.sort(keys[inside])
    mass = before + torch.cumsum(probabilities[inside][order], dim=-1)
    # The first place at which the mass reaches p is the last one kept.
    return ordered[min(int((mass < p).sum()), len(ordered) - 1)]


def _highest(scores: Tensor, count: int) -> Tensor:
    """Return the `count` highest of `scores` [C], in descending order.

    The highest of each block bound from below what the last of them can be; few reach that.
    """
    num_blocks = scores.numel() // _BLOCK
    if count < num_blocks:
        maxima = scores[: num_blocks * _BLOCK].view(num_blocks, _BLOCK).amax(-1)
        scores = scores[scores >= torch.topk(maxima, count).values[-1]]
    return torch.topk(scores, count).values


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
    highest = _highest(logits, min(count, logits.numel()))
    ties = (logits >= highest[-1]) & (logits > -math.inf)
    indices = ties.nonzero().squeeze(-1)
    scores = logits[indices]
    order = torch.sort(scores, descending=True, stable=True).indices[: count + MAX_TIES]
    logprobs = (best_logprob + (scores[order].double() - float(highest[0]))).tolist()
    ids = indices[order] if candidates.ids is None else candidates.ids[indices[order]]
    return [TokenScore(*pair) for pair in zip(ids.tolist(), logprobs, strict=True)]
