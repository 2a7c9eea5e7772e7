"""The client's own part in a stage's numbers: how late it was, how busy. Spec: bench.md section 11.

Nothing of it is ever taken off a latency: it says how far the latency can be believed.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import chain, pairwise

import numpy as np

from tgi_cli.runtime.bench.records import RequestRecord, StageRecord, WorkerSample
from tgi_cli.runtime.bench.result import Generator, Summary
from tgi_cli.runtime.bench.samples import NS, since
from tgi_cli.runtime.bench.statistics import nearest_rank, summarize


def generator_of(
    record: StageRecord, requests: Sequence[RequestRecord], window: tuple[int, int]
) -> Generator:
    """Return the client's own part in the numbers of the measured requests."""
    w0, w1 = window
    # A slice lasts a second at most: one that ends so soon after the window holds some of it.
    samples = [one for one in record.samples if w0 < one.at <= w1 + int(NS)]
    lags = np.fromiter(chain.from_iterable(one.loop_lags for one in samples), np.int64)
    lags.sort()
    num_deliveries = sum(len(request.deliveries) for request in requests)
    num_events = sum(request.num_events for request in requests)
    num_tokens = sum(request.output_tokens for request in requests)
    return Generator(
        lag=_spans((request.sched, request.wake) for request in requests),
        client_queue=_spans((request.wake, request.gate) for request in requests),
        connect=_spans(
            (request.conn if request.conn_reused else request.gate, request.conn)
            for request in requests
        ),
        loop_lag_p99=int(lags[nearest_rank(len(lags), 990) - 1]) / NS if len(lags) else None,
        cpu_max=_busiest(samples, w0),
        gc_pause_max=max((one.gc_pause / NS for one in samples), default=None),
        events_per_delivery=num_events / num_deliveries if num_deliveries else None,
        tokens_per_delivery=num_tokens / num_deliveries if num_deliveries else None,
    )


def _busiest(samples: Iterable[WorkerSample], w0: int) -> float | None:
    """Return the share of its core that the busiest worker used, as a mean over the window."""
    by_worker: dict[int, list[WorkerSample]] = {}
    for one in samples:
        by_worker.setdefault(one.worker, []).append(one)
    return max(
        (
            float(np.average([one.cpu_share for one in slices], weights=_widths(slices, w0)))
            for slices in by_worker.values()
        ),
        default=None,
    )


def _widths(slices: Sequence[WorkerSample], w0: int) -> list[int]:
    """Return how long each slice of a worker lasted inside the window, at least 1 ns."""
    return [max(now - before, 1) for before, now in pairwise((w0, *(one.at for one in slices)))]


def _spans(pairs: Iterable[tuple[int | None, int | None]]) -> Summary:
    spans = (since(start, stop) for start, stop in pairs)
    return summarize(np.array([span for span in spans if span is not None]))
