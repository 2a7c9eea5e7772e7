"""Records of made-up stages: what a client would have kept had a server answered so."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate
from random import Random
from typing import Any

from tgi_cli.runtime.bench.records import Failure, RequestRecord, StageRecord, WorkerSample
from tgi_cli.runtime.bench.stages import LoadKind, StageSpec

MS = 1_000_000  # ns
S = 1_000 * MS


def make_request(
    index: int = 0,
    sched: int = 0,
    *,
    ttft: int = 50 * MS,
    gaps: Sequence[int] = (10 * MS, 10 * MS, 10 * MS),
    tokens: Sequence[int] | None = None,
    lag: int = 0,
    **fields: Any,
) -> RequestRecord:
    """Return a request that went well: a delivery `ttft` after `sched`, then one after each gap."""
    moments = list(accumulate(gaps, initial=sched + ttft))
    counts = [1] * len(moments) if tokens is None else list(tokens)
    sent = sched + lag
    known: dict[str, Any] = {
        "wake": sent,
        "gate": sent,
        "conn": sent,
        "conn_reused": True,
        "sent": sent,
        "headers": moments[0],
        "first": moments[0],
        "first_content": moments[0],
        "last": moments[-1],
        "end": moments[-1],
        "deliveries": moments,
        "tokens": counts,
        "num_events": len(moments),
        "output_tokens": sum(counts),
        "planned_output_tokens": sum(counts),
        "input_tokens": 7,
        "token_source": "token_ids",
        "status": 200,
    }
    return RequestRecord(index=index, phase="measure", sched=sched, **(known | fields))


def make_failure(
    index: int = 0,
    sched: int = 0,
    failure: Failure = "http_429",
    *,
    after: int | None = 1 * MS,
    **fields: Any,
) -> RequestRecord:
    """Return a request without a token that failed `after` its sending (ns; None: still open)."""
    known: dict[str, Any] = {
        "wake": sched,
        "gate": sched,
        "conn": sched,
        "sent": sched,
        "end": None if after is None else sched + after,
        "planned_output_tokens": 4,
        "message": f"{failure} came",
    }
    return RequestRecord(
        index=index, phase="measure", sched=sched, failure=failure, **(known | fields)
    )


def make_stage(requests: Sequence[RequestRecord], **fields: Any) -> StageRecord:
    """Return an open loop's record with a window of 60 s."""
    ends = [request.end or 0 for request in requests]
    known: dict[str, Any] = {
        "key": "rate=4",
        "repeat": 0,
        "samples": [make_sample(at=30 * S)],
        "w0": 0,
        "w1": 60 * S,
        "drained": max([60 * S, *ends]),
        "num_workers": 1,
        "is_closed_loop": False,
        "has_cap": False,
    }
    known |= fields
    inside = [one for one in requests if known["w0"] <= one.sched < known["w1"]]
    return StageRecord(requests=list(requests), **({"num_planned": len(inside)} | known))


def make_sample(at: int, **fields: Any) -> WorkerSample:
    known: dict[str, Any] = {
        "loop_lags": [100_000] * 5,
        "cpu_share": 0.2,
        "gc_pause": 0,
        "num_events": 0,
        "num_deliveries": 0,
    }
    return WorkerSample(at=at, **(known | fields))


def make_spec(kind: LoadKind = "rate", value: float = 4, **fields: Any) -> StageSpec:
    return StageSpec(**({"key": f"{kind}={value:g}", "kind": kind, "value": value} | fields))


def poisson_requests(
    seed: int,
    *,
    rate: float = 4,
    stop: int = 60 * S,
    slowdown: float = 1.0,
    drift: float = 0.0,
    num_tokens: int = 20,
) -> list[RequestRecord]:
    """Return a noisy server's answers to a Poisson load: `slowdown` stretches every latency.

    `drift`: by how much, about, whole runs differ although nothing was changed.
    """
    random = Random(seed)
    requests: list[RequestRecord] = []
    at = random.expovariate(rate) * S
    pace = random.lognormvariate(0, drift)
    while at < stop:
        ttft = int(random.lognormvariate(4, 0.3) * MS * slowdown * pace)
        gaps = [
            int(random.lognormvariate(2.5, 0.2) * MS * slowdown * pace) for _ in range(num_tokens)
        ]
        requests.append(make_request(len(requests), int(at), ttft=ttft, gaps=gaps))
        at += random.expovariate(rate) * S
    return requests


def closed_loop_requests(
    seed: int,
    *,
    users: int = 4,
    stop: int = 60 * S,
    slowdown: float = 1.0,
    drift: float = 0.0,
    num_tokens: int = 20,
) -> list[RequestRecord]:
    """Return that server's answers to users who ask again 0.5 ms after each answer."""
    random = Random(seed)
    requests: list[RequestRecord] = []
    pace = random.lognormvariate(0, drift)
    for user in range(users):
        at = user * 10 * MS
        while at < stop:
            ttft = int(random.lognormvariate(4, 0.3) * MS * slowdown * pace)
            gaps = [
                int(random.lognormvariate(2.5, 0.2) * MS * slowdown * pace)
                for _ in range(num_tokens)
            ]
            request = make_request(len(requests), at, ttft=ttft, gaps=gaps, user=user)
            requests.append(request)
            assert request.end is not None
            at = request.end + MS // 2
    return requests
