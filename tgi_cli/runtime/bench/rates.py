"""Rates inside a window: what came in it, over how long it is. Spec: bench.md section 3."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from tgi_cli.runtime.bench.occupancy import arrivals, bin_edges, totals
from tgi_cli.runtime.bench.records import RequestRecord
from tgi_cli.runtime.bench.result import Interval, Rates
from tgi_cli.runtime.bench.samples import NS
from tgi_cli.runtime.bench.statistics import NUM_BATCHES, mean_interval


def rates(requests: Sequence[RequestRecord], start: int, stop: int) -> Rates:
    """Return the rates in [start, stop) ns, each with the interval over 20 batch means.

    `requests`: all of the stage; one that was planned before the window may deliver inside.
    """
    if stop <= start:
        return Rates()
    ended = requests_ended(requests, start, stop)
    began = [one for one in requests if one.first is not None and start <= one.first < stop]
    events = {
        "req_s": (np.array(ended, dtype=np.int64), np.ones(len(ended), np.int64)),
        "out_tok_s": arrivals(requests),
        "in_tok_s": (
            np.array([one.first for one in began], dtype=np.int64),
            np.array([input_tokens(one) or 0 for one in began], dtype=np.int64),
        ),
    }
    edges = np.linspace(start, stop, NUM_BATCHES + 1)
    means: dict[str, float] = {}
    intervals: dict[str, Interval] = {}
    for name, (moments, weights) in events.items():
        batches = totals(moments, weights, edges)
        means[name] = float(batches.sum() / (stop - start) * NS)
        if interval := mean_interval(batches / np.diff(edges) * NS):
            intervals[name] = (max(interval[0], 0.0), interval[1])
    return Rates(**means, ci95=intervals)


def requests_ended(requests: Sequence[RequestRecord], start: int, stop: int) -> list[int]:
    """Return when the requests ended that went well and ended in [start, stop)."""
    return [
        one.end for one in requests if one.is_ok and one.end is not None and start <= one.end < stop
    ]


def peak_out_tok_s(requests: Sequence[RequestRecord], start: int, stop: int) -> float:
    """Return the most tokens that came in one of the window's seconds."""
    moments, tokens = arrivals(requests)
    return float(totals(moments, tokens, bin_edges(start, stop, int(NS))).max())


def input_tokens(request: RequestRecord) -> int | None:
    """Return the input's tokens as the server counts them, else as the client does."""
    return request.own_input_tokens if request.input_tokens is None else request.input_tokens


def cached_fraction(requests: Sequence[RequestRecord]) -> float | None:
    """Return the share of input tokens that came from the server's cache, where it tells."""
    telling = [one for one in requests if one.cached_tokens is not None and input_tokens(one)]
    if not telling:
        return None
    cached = sum(one.cached_tokens or 0 for one in telling)
    return cached / sum(input_tokens(one) or 0 for one in telling)
