"""Which requests were good: they went well and met every limit of `--goodput`.

A limit that can't be evaluated counts as met: one token has no time per token. Spec: bench.md
section 3.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from tgi_cli.runtime.bench.records import RequestRecord
from tgi_cli.runtime.bench.result import Goodput
from tgi_cli.runtime.bench.samples import RESPONSE, Value, itl_max, judged, tpot

LIMITED: dict[str, Value] = {
    "ttft": RESPONSE["ttft"],
    "tpot": tpot,
    "itl_max": itl_max,
    "e2e": RESPONSE["e2e"],
}
"""What `--goodput` can limit, by name."""


def limits_missed(request: RequestRecord, limits: dict[str, float]) -> list[str]:
    """Return the limits, in seconds, that a request which went well doesn't meet."""
    missed = []
    for name, limit in limits.items():
        value = LIMITED[name](request)
        if value is not None and value > limit:
            missed.append(name)
    return missed


def goodput(
    requests: Sequence[RequestRecord], limits: dict[str, float], window_s: float
) -> Goodput:
    """Return the share and the rates of good requests among those measured."""
    attempted = judged(requests)
    if not limits or not attempted:
        return Goodput(limits=limits)
    num_good = num_tokens = 0
    missed: Counter[str] = Counter(dict.fromkeys(limits, 0))
    for request in attempted:
        if not request.is_ok:
            continue
        if names := limits_missed(request, limits):
            missed.update(names)
        else:
            num_good += 1
            num_tokens += request.output_tokens
    return Goodput(
        limits=limits,
        fraction=num_good / len(attempted),
        req_s=num_good / window_s if window_s else None,
        tok_s=num_tokens / window_s if window_s else None,
        failed_limit=dict(missed),
    )
