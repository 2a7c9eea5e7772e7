"""Find the part of a stage in which its load was steady.

Closed loop: the longest span in which the concurrency is at least 90 % of its highest. It is taken
as a mean over hundredths of the window: between an answer and the next request of the same user,
the number held falls by one for a moment, which ends no span. Open loop: MSER-5 over the TTFT in
the order of sending. Spec: bench.md section 8.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from tgi_cli.runtime.bench.occupancy import Occupancy, bin_edges
from tgi_cli.runtime.bench.records import RequestRecord
from tgi_cli.runtime.bench.samples import RESPONSE
from tgi_cli.runtime.bench.statistics import mser5_cut

_NUM_SLICES = 100
_MIN_SHARE = 0.5
_MIN_REQUESTS = 30


def find_steady(
    requests: Sequence[RequestRecord],
    occupancy: Occupancy,
    window: tuple[int, int],
    is_closed_loop: bool,
) -> tuple[int, int, bool]:
    """Return the span in ns, and whether it is long enough to speak of a steady state.

    `requests`: those measured, in the order of sending.
    """
    if is_closed_loop:
        span = _longest_full_span(occupancy, window)
    else:
        span = _without_start_up(requests, window)
    start, stop = span
    num_inside = sum(start <= request.sched < stop for request in requests)
    w0, w1 = window
    is_long = w1 > w0 and stop - start >= _MIN_SHARE * (w1 - w0)
    return start, stop, is_long and num_inside >= _MIN_REQUESTS


def _longest_full_span(occupancy: Occupancy, window: tuple[int, int]) -> tuple[int, int]:
    w0, w1 = window
    edges = bin_edges(w0, w1, max((w1 - w0) // _NUM_SLICES, 1))
    levels = occupancy.means(edges)
    is_full = (levels >= 0.9 * levels.max()) & (levels > 0)
    bounds = np.flatnonzero(np.diff(np.concatenate(([False], is_full, [False]))))
    spans = bounds.reshape(-1, 2)  # first slice, and the one behind the last
    if len(spans) == 0:
        return w0, w0
    first, last = spans[np.argmax(edges[spans[:, 1]] - edges[spans[:, 0]])]
    return int(edges[first]), int(edges[last])


def _without_start_up(
    requests: Sequence[RequestRecord], window: tuple[int, int]
) -> tuple[int, int]:
    ttft = RESPONSE["ttft"]
    went_well = [
        (request, seconds)
        for request in requests
        if request.is_ok and (seconds := ttft(request)) is not None
    ]
    cut = mser5_cut([seconds for _, seconds in went_well])
    w0, w1 = window
    return (went_well[cut][0].sched if cut else w0), w1
