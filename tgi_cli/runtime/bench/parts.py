"""The parts of a stage: its seconds, the slices of a ramp, the turns of conversations.

Requests belong to the part in which they were planned to leave; tokens to that in which they came.
Spec: bench.md sections 6 and 15.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np

from tgi_cli.runtime.bench.occupancy import Occupancy, arrivals, bin_edges, totals
from tgi_cli.runtime.bench.rates import cached_fraction, requests_ended
from tgi_cli.runtime.bench.records import RequestRecord, StageRecord
from tgi_cli.runtime.bench.result import Part, Summary, Timeline
from tgi_cli.runtime.bench.samples import NS, RESPONSE, judged, tpot, values_of
from tgi_cli.runtime.bench.statistics import summarize

_SLICE_S = 10


def timeline_of(
    record: StageRecord,
    requests: Sequence[RequestRecord],
    occupancy: Occupancy,
    window: tuple[int, int],
) -> Timeline:
    """Return the window second by second; `requests`: those measured."""
    edges = bin_edges(*window, int(NS))
    groups = _by_bin(requests, edges)
    return Timeline(
        out_tok=[int(count) for count in totals(*arrivals(record.requests), edges)],
        in_flight=[float(level) for level in occupancy.means(edges)],
        ttft_p50=[_latencies(group).ttft.p50 for group in groups],
        errors=[_num_errors(group) for group in groups],
    )


def slices_of(
    record: StageRecord,
    requests: Sequence[RequestRecord],
    occupancy: Occupancy,
    window: tuple[int, int],
) -> list[Part]:
    """Return the window in slices of 10 s."""
    edges = bin_edges(*window, int(_SLICE_S * NS))
    widths = np.diff(edges) / NS
    tokens = totals(*arrivals(record.requests), edges)
    levels = occupancy.means(edges)
    parts = []
    for k, group in enumerate(_by_bin(requests, edges)):
        start, stop, width = int(edges[k]), int(edges[k + 1]), float(widths[k])
        num_done = len(requests_ended(record.requests, start, stop))
        part = _part(group)
        part.start_s, part.duration_s = (start - window[0]) / NS, width
        part.req_s = num_done / width if width else None
        part.out_tok_s = float(tokens[k]) / width if width else None
        part.concurrency = float(levels[k])
        parts.append(part)
    return parts


def turns_of(requests: Iterable[RequestRecord]) -> list[Part]:
    """Return the requests by their turn in a conversation, the first first."""
    groups: dict[int, list[RequestRecord]] = {}
    for request in requests:
        if request.turn is not None:
            groups.setdefault(request.turn, []).append(request)
    parts = []
    for turn, group in sorted(groups.items()):
        part = _part(group)
        part.turn = turn
        parts.append(part)
    return parts


def _part(group: Sequence[RequestRecord]) -> Part:
    latencies = _latencies(group)
    return Part(
        num_requests=len(group),
        num_errors=_num_errors(group),
        ttft=latencies.ttft,
        tpot=latencies.tpot,
        e2e=latencies.e2e,
        cached_fraction=cached_fraction(group),
    )


class _Latencies(NamedTuple):
    ttft: Summary
    tpot: Summary
    e2e: Summary


def _latencies(group: Sequence[RequestRecord]) -> _Latencies:
    attempted = judged(group)
    return _Latencies(
        ttft=summarize(values_of(attempted, RESPONSE["ttft"])),
        tpot=summarize(values_of(attempted, tpot)),
        e2e=summarize(values_of(attempted, RESPONSE["e2e"])),
    )


def _num_errors(group: Iterable[RequestRecord]) -> int:
    return sum(not request.is_ok for request in judged(group))


def _by_bin(requests: Sequence[RequestRecord], edges: np.ndarray) -> list[list[RequestRecord]]:
    groups: list[list[RequestRecord]] = [[] for _ in edges[:-1]]
    moments = np.array([request.sched for request in requests], dtype=np.int64)
    for request, k in zip(requests, np.searchsorted(edges, moments, side="right"), strict=True):
        groups[min(int(k), len(groups)) - 1].append(request)
    return groups
