"""The values that a metric takes over a set of requests, in seconds, failures as infinity.

A request that failed enters each latency as infinity. In the pooled ones, `itl` and `icl`, the gaps
that it did have count too, and each token that it owed counts as one infinite gap: so many would
have entered had it gone well, and a server can't improve a percentile by giving up on the slow.
What a client hung up on by itself (`cancelled`) is neither. Spec: bench.md section 3.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import chain

import numpy as np

from tgi_cli.runtime.bench.records import RequestRecord

NS = 1e9
Value = Callable[[RequestRecord], float | None]
"""A latency of a request that went well; None: it has none, as one token has no tpot."""


def since(start: int | None, moment: int | None) -> float | None:
    """Return the seconds between two moments, if both have come."""
    return None if start is None or moment is None else (moment - start) / NS


def tpot(request: RequestRecord) -> float | None:
    """Return the seconds per token behind the first delivery."""
    return _per_token(request, request.tokens[0] if request.tokens else 0)


def tpot_n1(request: RequestRecord) -> float | None:
    """Return the seconds per token behind the first token, as most programs have it."""
    return _per_token(request, 1) if tpot(request) is not None else None


def _per_token(request: RequestRecord, num_first: int) -> float | None:
    span = since(request.first, request.last)
    num_tokens = request.output_tokens - num_first
    return None if span is None or num_tokens <= 0 else span / num_tokens


def stall(request: RequestRecord) -> float | None:
    """Return the longest gap between two deliveries."""
    return max((gap for gap, _ in request.spans()), default=math.nan) / NS


def itl_max(request: RequestRecord) -> float | None:
    """Return the longest gap per token."""
    return max((gap / count for gap, count in request.spans() if count), default=math.nan) / NS


RESPONSE: dict[str, Value] = {
    "ttft": lambda request: since(request.sched, request.first),
    "ttfc": lambda request: since(request.sched, request.first_content),
    "e2e": lambda request: since(request.sched, request.end),
    "tpot": tpot,
    "tpot_n1": tpot_n1,
    "stall": stall,
}
"""Latencies of a request, from the moment at which it was planned to leave."""

SERVICE: dict[str, Value] = {
    "ttft": lambda request: since(request.sent, request.first),
    "ttfc": lambda request: since(request.sent, request.first_content),
    "e2e": lambda request: since(request.sent, request.end),
}
"""The same from the moment at which it was sent."""


def values_of(requests: Iterable[RequestRecord], value: Value) -> np.ndarray:
    """Return a latency of each request that has it; infinity for each that failed."""
    found = (value(request) if request.is_ok else math.inf for request in requests)
    values = np.fromiter((math.nan if one is None else one for one in found), np.float64)
    return values[~np.isnan(values)]


def judged(requests: Iterable[RequestRecord]) -> list[RequestRecord]:
    """Return the requests but those that the client hung up on by itself."""
    return [request for request in requests if request.failure != "cancelled"]


@dataclass(frozen=True, slots=True)
class Gaps:
    """Gaps between deliveries of many requests; arrays are parallel, one entry per gap."""

    seconds: np.ndarray  # infinite: never came
    num_tokens: np.ndarray  # that the gap ended with; of an infinite one, that were owed
    owner: np.ndarray  # index of the request

    @property
    def itl(self) -> np.ndarray:
        """Gaps per token, one for each token."""
        has_tokens = self.num_tokens > 0
        counts = self.num_tokens[has_tokens]
        return np.repeat(self.seconds[has_tokens] / counts, counts)

    @property
    def icl(self) -> np.ndarray:
        """Gaps as a reader sees them."""
        return self.seconds


def gaps_of(requests: Sequence[RequestRecord]) -> Gaps:
    """Return the gaps of the requests, and for each that failed those that it owes."""
    lengths = np.fromiter((len(request.deliveries) for request in requests), np.int64)
    total = int(lengths.sum())
    moments = np.fromiter(
        chain.from_iterable(request.deliveries for request in requests), np.int64, total
    )
    tokens = np.fromiter(
        chain.from_iterable(request.tokens for request in requests), np.int64, total
    )
    within = np.ones(max(total - 1, 0), np.bool_)
    ends = np.cumsum(lengths)
    within[ends[(ends > 0) & (ends < total)] - 1] = False  # the gap between two requests
    owner = np.repeat(np.arange(len(requests)), np.maximum(lengths - 1, 0))
    came = Gaps(np.diff(moments)[within] / NS, tokens[1:][within], owner)
    owed = _owed(requests, came)
    if not len(owed.seconds):
        return came
    return Gaps(
        np.concatenate((came.seconds, owed.seconds)),
        np.concatenate((came.num_tokens, owed.num_tokens)),
        np.concatenate((came.owner, owed.owner)),
    )


def _owed(requests: Sequence[RequestRecord], came: Gaps) -> Gaps:
    """Return infinite gaps for the tokens that failed requests never brought.

    They come in deliveries as large as those of the others. Where nobody planned a length, a
    request owes what those that went well had on average.
    """
    failed = [index for index, request in enumerate(requests) if not request.is_ok]
    if not failed:
        return Gaps(np.empty(0), np.empty(0, np.int64), np.empty(0, np.int64))
    usual = [request.output_tokens for request in requests if request.is_ok]
    usual_length = round(sum(usual) / len(usual)) if usual else 1
    size = max(round(float(came.num_tokens.mean())), 1) if len(came.num_tokens) else 1
    num_tokens: list[int] = []
    owner: list[int] = []
    for index in failed:
        request = requests[index]
        owed = (request.planned_output_tokens or usual_length) - request.output_tokens
        owed = max(owed if request.deliveries else owed - size, 1)  # the first gives no gap
        whole, rest = divmod(owed, size)
        sizes = [size] * whole + ([rest] if rest else [])
        num_tokens += sizes
        owner += [index] * len(sizes)
    return Gaps(
        np.full(len(owner), math.inf),
        np.array(num_tokens, dtype=np.int64),
        np.array(owner, dtype=np.int64),
    )
