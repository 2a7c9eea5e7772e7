"""How much a number of a single run could have been otherwise: block bootstrap in time.

The window is cut into equal blocks, which are drawn anew with repetition: what happens within a
block stays together, since neighbours in time depend on each other. Latencies belong to the block
in which their request was planned to leave; tokens and ends to that in which they came.

Künsch, The jackknife and the bootstrap for general stationary observations, Ann. Statist. 1989.
Of few blocks the spread comes out too small; the tails are Student's to make up for it: Hesterberg,
What teachers should know about the bootstrap, The American Statistician 2015.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np

from tgi_cli.runtime.bench.distributions import t_quantile
from tgi_cli.runtime.bench.goodput import limits_missed
from tgi_cli.runtime.bench.measures import metric_values
from tgi_cli.runtime.bench.occupancy import arrivals, totals
from tgi_cli.runtime.bench.rates import requests_ended
from tgi_cli.runtime.bench.records import RequestRecord
from tgi_cli.runtime.bench.samples import judged
from tgi_cli.runtime.bench.statistics import CONFIDENCE, NUM_BATCHES, PERCENTILES

_NUM_DRAWS = 1000
_MAX_BINS = 1024  # values are drawn as so many groups at most, each known by its largest
_TAIL = NormalDist().cdf(
    t_quantile((1 - CONFIDENCE) / 2, NUM_BATCHES - 1) * math.sqrt(NUM_BATCHES / (NUM_BATCHES - 1))
)


@dataclass(frozen=True, slots=True)
class Blocks:
    """The parts of a window, by number of the block."""

    width_s: float
    latencies: list[dict[str, np.ndarray]]
    num_tokens: np.ndarray
    num_done: np.ndarray
    num_attempted: np.ndarray
    num_bad: np.ndarray
    num_good: np.ndarray | None  # None: no limits to be good by


def cut_into_blocks(
    requests: Sequence[RequestRecord], window: tuple[int, int], limits: dict[str, float]
) -> Blocks:
    """Cut a stage's requests into blocks; `window` is in ns, `limits` those of `--goodput`."""
    w0, w1 = window
    edges = np.linspace(w0, w1, NUM_BATCHES + 1)
    groups: list[list[RequestRecord]] = [[] for _ in range(NUM_BATCHES)]
    for request in judged(requests):
        if w0 <= request.sched < w1:
            groups[(request.sched - w0) * NUM_BATCHES // (w1 - w0)].append(request)
    ended = np.array(requests_ended(requests, w0, w1), dtype=np.int64)
    good = [sum(one.is_ok and not limits_missed(one, limits) for one in group) for group in groups]
    return Blocks(
        width_s=(w1 - w0) / NUM_BATCHES / 1e9,
        latencies=[metric_values(group) for group in groups],
        num_tokens=totals(*arrivals(requests), edges),
        num_done=totals(ended, np.ones(len(ended), np.int64), edges),
        num_attempted=np.array([len(group) for group in groups]),
        num_bad=np.array([sum(not one.is_ok for one in group) for group in groups]),
        num_good=np.array(good) if limits else None,
    )


def draw(blocks: Blocks, name: str, seed: int) -> np.ndarray | None:
    """Return a number, by its name, over many draws of the blocks; None: it isn't drawn."""
    random = np.random.default_rng(seed)
    n = NUM_BATCHES
    times = random.multinomial(n, [1 / n] * n, size=_NUM_DRAWS)  # how often each block was drawn
    metric, _, statistic = name.partition(".")
    if statistic in PERCENTILES:
        values = [latencies[metric] for latencies in blocks.latencies]
        return _drawn_percentile(values, times, PERCENTILES[statistic])
    match name:
        case "out_tok_s":
            return np.asarray(times @ blocks.num_tokens / (n * blocks.width_s))
        case "req_s":
            return np.asarray(times @ blocks.num_done / (n * blocks.width_s))
        case "error_rate":
            return _share(times @ blocks.num_bad, times @ blocks.num_attempted)
        case "goodput" if blocks.num_good is not None:
            return _share(times @ blocks.num_good, times @ blocks.num_attempted)
    return None


def ratio_of_draws(before: np.ndarray, after: np.ndarray) -> tuple[float, float] | None:
    """Return the interval of after / before; None where too few draws have both."""
    with np.errstate(divide="ignore", invalid="ignore"):
        ratios = after / before
    same = (before == after) & ~np.isnan(before)  # both 0, or both infinite
    ratios = np.sort(np.where(same, 1.0, ratios))
    ratios = ratios[~np.isnan(ratios)]
    if len(ratios) < _NUM_DRAWS // 2:
        return None
    outside = math.floor(_TAIL * len(ratios))
    return float(ratios[outside]), float(ratios[len(ratios) - 1 - outside])


def _drawn_percentile(
    values: Sequence[np.ndarray], times: np.ndarray, permille: int
) -> np.ndarray | None:
    everything = np.sort(np.concatenate(list(values)))
    if len(everything) == 0:
        return None
    if len(everything) > _MAX_BINS:
        picked = np.linspace(0, len(everything) - 1, _MAX_BINS).astype(np.int64)
        everything = everything[picked]
    tops = np.unique(everything)
    counts = np.array(
        [
            np.bincount(np.searchsorted(tops, block, side="left"), minlength=len(tops))
            for block in values
        ]
    )
    cumulative = np.cumsum(times @ counts, axis=1)
    sizes = cumulative[:, -1:]
    ranks = np.maximum(-(-permille * sizes // 1000), 1)
    found = tops[np.argmax(cumulative >= ranks, axis=1)]
    return np.where(sizes[:, 0] > 0, found, math.nan)


def _share(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    return np.where(whole > 0, part / np.maximum(whole, 1), math.nan)
