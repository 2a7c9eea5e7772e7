"""Builders for bench tests: results with numbers that are easy to know again."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from typing import Any

from tgi_cli.runtime.bench.result import (
    ClientFacts,
    Concurrency,
    Counts,
    Endpoint,
    Generator,
    Goodput,
    Latencies,
    Latency,
    Load,
    Phases,
    Rates,
    Result,
    Stage,
    Steady,
    Summary,
    Throughput,
    Timeline,
    Tokens,
)
from tgi_cli.runtime.bench.shape import distribution_of


def summary(values: Sequence[float]) -> Summary:
    """Return nearest-rank percentiles of values that may be infinite."""
    ordered = sorted(values)
    if not ordered:
        return Summary()

    def at(q: float) -> Any:
        value = ordered[max(0, math.ceil(q * len(ordered)) - 1)]
        return value if math.isfinite(value) else "inf"

    finite = [value for value in ordered if math.isfinite(value)]
    proven = {"p50": 0.5, "p90": 0.9, "p95": 0.95, "p99": 0.99 if len(ordered) >= 368 else None}
    return Summary(
        n=len(ordered),
        mean=sum(finite) / len(finite) if len(finite) == len(ordered) else "inf",
        sd=0.1,
        min=at(0.0),
        max=at(1.0),
        p50=at(0.5),
        p90=at(0.9),
        p95=at(0.95),
        p99=at(0.99),
        p999=at(0.999),
        ci95={name: (at(q), at(q)) for name, q in proven.items() if q is not None},
    )


def latency(values: Sequence[float], num_failed: int = 0) -> Latency:
    ok = summary(values)
    return Latency(ok=ok, all=summary([*values, *[math.inf] * num_failed]), steady=ok, service=ok)


def stage(
    value: float = 8.0,
    *,
    kind: str = "concurrency",
    num_ok: int = 400,
    num_failed: int = 0,
    seed: int = 1,
    **changes: Any,
) -> Stage:
    """Return a stage of `num_ok` answers whose times grow with `value`."""
    draw = random.Random(seed)
    ttfts = [0.02 * value * draw.lognormvariate(0, 0.5) for _ in range(num_ok)]
    itls = [0.004 * value**0.5 * draw.lognormvariate(0, 0.2) for _ in range(20 * num_ok)]
    e2es = [ttft + 1.0 for ttft in ttfts]
    failures = [math.inf] * num_failed
    fields: dict[str, Any] = {
        "key": f"{kind}={value:g}",
        "load": Load(kind=kind, value=value, arrival="poisson" if kind == "rate" else None),
        "phases": Phases(
            warmup_s=2.0, w0=2.0, w1=62.0, drain_s=0.5, steady=Steady(w0=4.0, w1=60.0, found=True)
        ),
        "counts": Counts(
            planned=num_ok + num_failed,
            sent=num_ok + num_failed,
            ok=num_ok,
            failed=num_failed,
            by_class={"http_429": num_failed} if num_failed else {},
            messages={"http_429": "Model is overloaded"} if num_failed else {},
        ),
        "tokens": Tokens(input=512 * num_ok, output=128 * num_ok, source={"token_ids": num_ok}),
        "throughput": Throughput(
            all=Rates(req_s=num_ok / 60, out_tok_s=128 * num_ok / 60, in_tok_s=512 * num_ok / 60),
            steady=Rates(out_tok_s=130 * num_ok / 60),
            peak_out_tok_s=900.0,
            offered_req_s=(num_ok + num_failed) / 60 if kind == "rate" else None,
        ),
        "latency": Latencies(
            ttft=latency(ttfts, num_failed),
            ttfc=latency(ttfts, num_failed),
            e2e=latency(e2es, num_failed),
            tpot=latency(itls[:num_ok], num_failed),
            tpot_n1=latency(itls[:num_ok], num_failed),
            itl=latency(itls),
            icl=latency(itls),
            stall=latency([5 * each for each in itls[:num_ok]], num_failed),
        ),
        "concurrency": Concurrency(mean=value, max=int(value) + 1, little_residual=0.01),
        "goodput": Goodput(),
        "generator": Generator(
            lag=summary([0.0003] * num_ok), client_queue=summary([0.0]), connect=summary([0.001])
        ),
        "timeline": Timeline(
            out_tok=[draw.randrange(600, 900) for _ in range(60)],
            in_flight=[value - draw.random() for _ in range(60)],
            ttft_p50=[0.02 * value * draw.uniform(0.8, 1.3) for _ in range(60)],
            errors=[draw.randrange(2) if num_failed else 0 for _ in range(60)],
        ),
        "distributions": {
            "ttft": distribution_of([*ttfts, *failures]),
            "itl": distribution_of(itls),
            "e2e": distribution_of([*e2es, *failures]),
        },
    }
    return Stage(**{**fields, **changes})


def result(*stages: Stage, **changes: Any) -> Result:
    fields: dict[str, Any] = {
        "id": "3f2a",
        "started": "2026-01-31T12:00:00Z",
        "tgi_version": "0.1.0",
        "argv": ["tgi", "bench", "http://127.0.0.1:3000"],
        "config": {"input-tokens": "512", "output-tokens": "128"},
        "seed": 42,
        "endpoint": Endpoint(url="http://127.0.0.1:3000", protocol="chat", model="smollm2-135m"),
        "client": ClientFacts(
            host="here",
            cpu="a CPU",
            cores=2,
            kernel="6.1",
            python="3.11.7",
            workers=1,
        ),
        "stages": list(stages) or [stage()],
    }
    return Result(**{**fields, **changes})
