"""Turn the record of a stage into its numbers.

Requests belong to the window by the moment at which they were planned to leave, and then all of
their life counts. Rates count what happened inside the window, whoever's it was. Pure functions:
the same record gives the same numbers, and so does one read back from `requests.jsonl`.
Spec: bench.md sections 3, 8 and 15.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from tgi_cli.runtime.bench import result
from tgi_cli.runtime.bench.generator import generator_of
from tgi_cli.runtime.bench.goodput import goodput
from tgi_cli.runtime.bench.occupancy import Occupancy
from tgi_cli.runtime.bench.parts import slices_of, timeline_of, turns_of
from tgi_cli.runtime.bench.rates import (
    cached_fraction,
    input_tokens,
    peak_out_tok_s,
    rates,
)
from tgi_cli.runtime.bench.records import RequestRecord, StageRecord
from tgi_cli.runtime.bench.samples import (
    NS,
    RESPONSE,
    SERVICE,
    gaps_of,
    judged,
    values_of,
)
from tgi_cli.runtime.bench.shape import distribution_of
from tgi_cli.runtime.bench.stages import StageSpec
from tgi_cli.runtime.bench.statistics import real, summarize
from tgi_cli.runtime.bench.steady import find_steady
from tgi_cli.runtime.bench.verdict import judge, stability

_COUNTED_APART = frozenset({"unfinished", "dropped", "cancelled"})
_WITHOUT_STEADY_STATE = frozenset({"burst", "offline", "ramp"})
_DRAWN = ("ttft", "itl", "e2e")
_QUEUE_HISTOGRAMS = ("tgi_request_queue_duration", "vllm:request_queue_time_seconds")


def measure_stage(
    record: StageRecord, spec: StageSpec, limits: Mapping[str, float] | None = None
) -> result.Stage:
    """Return the numbers of a stage; `limits`: those of `--goodput`, in seconds."""
    requests = measured(record)
    w0, w1 = window_of(record, spec)
    occupancy = Occupancy(record.requests, record.drained)
    steady = _steady(record, spec, requests, occupancy, (w0, w1))
    counts = _counts(record, requests)
    values = metric_values(requests)
    latency = latencies(record, requests, values, steady)
    generator = generator_of(record, requests, (w0, w1))
    concurrency, edge_share = _concurrency(record, occupancy, (w0, w1))
    verdict, reasons = judge(
        record,
        counts,
        generator,
        _first_known(latency.ttft.ok.p50, latency.e2e.ok.p50),
        concurrency.little_residual,
        edge_share,
    )
    is_stable: bool | None = None
    if spec.kind == "rate":
        is_stable, reason = stability(record, requests, occupancy)
        if reason:
            reasons = [*reasons, f"unstable: {reason}"]
    return result.Stage(
        key=record.key,
        load=_load(spec),
        repeat=record.repeat,
        verdict=verdict,
        verdict_reasons=reasons,
        is_stable=is_stable,
        phases=_phases(record, (w0, w1), steady),
        counts=counts,
        tokens=_tokens(requests),
        throughput=_throughput(record, requests, (w0, w1), steady),
        latency=latency,
        concurrency=concurrency,
        goodput=goodput(requests, dict(limits or {}), (w1 - w0) / NS),
        generator=generator,
        server_metrics=result.ServerMetrics(
            before=_finite(record.metrics_before),
            after=_finite(record.metrics_after),
            series=[_finite(metrics) for metrics in record.metrics_series],
        ),
        timeline=timeline_of(record, requests, occupancy, (w0, w1)),
        by_turn=turns_of(requests),
        by_slice=slices_of(record, requests, occupancy, (w0, w1)) if spec.kind == "ramp" else [],
        distributions={name: distribution_of(values[name].tolist()) for name in _DRAWN},
    )


def measured(record: StageRecord) -> list[RequestRecord]:
    """Return the requests of the window, in the order in which they were planned to leave."""
    inside = [request for request in record.requests if record.w0 <= request.sched < record.w1]
    return sorted(inside, key=lambda request: (request.sched, request.index))


def window_of(record: StageRecord, spec: StageSpec) -> tuple[int, int]:
    """Return the window in ns; that of requests sent at one instant lasts until they have ended."""
    if spec.kind in ("burst", "offline"):
        return record.w0, max(record.w1, record.drained + 1)
    return record.w0, record.w1


def metric_values(requests: Sequence[RequestRecord]) -> dict[str, np.ndarray]:
    """Return the values of each latency, in seconds; failures are infinite."""
    attempted = judged(requests)
    values = {name: values_of(attempted, value) for name, value in RESPONSE.items()}
    gaps = gaps_of(attempted)
    return values | {"itl": gaps.itl, "icl": gaps.icl}


def latencies(
    record: StageRecord,
    requests: Sequence[RequestRecord],
    everything: Mapping[str, np.ndarray],
    steady: tuple[int, int, bool],
) -> result.Latencies:
    """Return each latency over its populations: all, those that went well, the steady part."""
    start, stop, is_steady = steady
    well = [request for request in requests if request.is_ok]
    calm = [request for request in requests if is_steady and start <= request.sched < stop]
    every = _summaries(everything)
    # One population after the other: each holds a value for every token.
    ok = every if len(well) == len(requests) else _summaries(metric_values(well))
    settled = every if len(calm) == len(requests) else _summaries(metric_values(calm))
    service = _summaries({name: values_of(well, value) for name, value in SERVICE.items()})

    def latency(name: str) -> result.Latency:
        return result.Latency(
            ok=ok[name], all=every[name], steady=settled[name], service=service.get(name)
        )

    return result.Latencies(
        ttft=latency("ttft"),
        ttfc=latency("ttfc"),
        e2e=latency("e2e"),
        tpot=latency("tpot"),
        tpot_n1=latency("tpot_n1"),
        itl=latency("itl"),
        icl=latency("icl"),
        stall=latency("stall"),
        server_queue=_server_queue(record, requests),
    )


def _summaries(values: Mapping[str, np.ndarray]) -> dict[str, result.Summary]:
    return {name: summarize(of_one) for name, of_one in values.items()}


def _server_queue(record: StageRecord, requests: Iterable[RequestRecord]) -> result.Summary | None:
    """Return the waiting that the server tells of: by request, else as a mean of its histogram."""
    told = [one.server_queue_s for one in requests if one.server_queue_s is not None]
    if told:
        return summarize(np.array(told))
    before, after = record.metrics_before, record.metrics_after
    for name in _QUEUE_HISTOGRAMS:
        if f"{name}_count" in after:
            n = after[f"{name}_count"] - before.get(f"{name}_count", 0)
            seconds = after.get(f"{name}_sum", 0) - before.get(f"{name}_sum", 0)
            return result.Summary(n=round(n), mean=seconds / n) if n > 0 else None
    return None


def _steady(
    record: StageRecord,
    spec: StageSpec,
    requests: Sequence[RequestRecord],
    occupancy: Occupancy,
    window: tuple[int, int],
) -> tuple[int, int, bool]:
    if spec.kind in _WITHOUT_STEADY_STATE:
        return (*window, False)
    return find_steady(requests, occupancy, window, record.is_closed_loop)


def _load(spec: StageSpec) -> result.Load:
    value: float | str | None = spec.value
    if spec.kind == "ramp":
        value = f"{spec.value:g}..{spec.ramp_to:g}"
    elif spec.kind in ("offline", "trace"):
        value = None
    has_arrival = not spec.is_closed_loop and spec.kind in ("rate", "ramp")
    return result.Load(
        kind=spec.kind,
        value=value,
        arrival=spec.arrival if has_arrival else None,
        burstiness=spec.burstiness if has_arrival and spec.arrival == "gamma" else None,
        max_concurrency=spec.max_concurrency,
    )


def _phases(
    record: StageRecord, window: tuple[int, int], steady: tuple[int, int, bool]
) -> result.Phases:
    w0, w1 = window
    start, stop, found = steady
    return result.Phases(
        warmup_s=record.warmup_s,
        w0=w0 / NS,
        w1=w1 / NS,
        drain_s=max(record.drained - w1, 0) / NS,
        steady=result.Steady(w0=start / NS, w1=stop / NS, found=found),
    )


def _counts(record: StageRecord, requests: Sequence[RequestRecord]) -> result.Counts:
    by_class = Counter(request.failure for request in requests if request.failure is not None)
    messages: dict[str, str] = {}
    for request in requests:
        if request.failure is not None and request.message:
            messages.setdefault(request.failure, request.message)
    return result.Counts(
        planned=record.num_planned,
        sent=sum(request.sent is not None for request in requests),
        ok=sum(request.is_ok for request in requests),
        failed=sum(count for name, count in by_class.items() if name not in _COUNTED_APART),
        unfinished=by_class["unfinished"],
        dropped=by_class["dropped"],
        cancelled=by_class["cancelled"],
        by_class={str(name): count for name, count in by_class.most_common()},
        messages=messages,
    )


def _tokens(requests: Sequence[RequestRecord]) -> result.Tokens:
    sources = Counter(request.token_source for request in requests if request.token_source)
    mismatches = [
        abs(request.output_tokens - request.own_output_tokens) / request.output_tokens
        for request in requests
        if request.own_output_tokens is not None
        and request.output_tokens
        and request.token_source not in ("tokenizer", "events")
    ]
    planned = [
        request.output_tokens < request.planned_output_tokens
        for request in requests
        if request.is_ok and request.planned_output_tokens is not None
    ]
    return result.Tokens(
        input=sum(input_tokens(request) or 0 for request in requests),
        output=sum(request.output_tokens for request in requests),
        source={str(name): count for name, count in sources.most_common()},
        mismatch_mean=sum(mismatches) / len(mismatches) if mismatches else None,
        short_output_fraction=sum(planned) / len(planned) if planned else None,
        cached_fraction=cached_fraction(requests),
    )


def _throughput(
    record: StageRecord,
    requests: Sequence[RequestRecord],
    window: tuple[int, int],
    steady: tuple[int, int, bool],
) -> result.Throughput:
    w0, w1 = window
    window_s = (w1 - w0) / NS
    start, stop, is_steady = steady
    num_sent = sum(request.sent is not None for request in requests)
    planned = record.num_planned if not record.is_closed_loop else None
    return result.Throughput(
        all=rates(record.requests, w0, w1),
        steady=rates(record.requests, start, stop) if is_steady else result.Rates(),
        peak_out_tok_s=peak_out_tok_s(record.requests, w0, w1),
        offered_req_s=planned / window_s if planned is not None and window_s else None,
        sent_req_s=num_sent / window_s if window_s else None,
    )


def _concurrency(
    record: StageRecord, occupancy: Occupancy, window: tuple[int, int]
) -> tuple[result.Concurrency, float]:
    """Return the concurrency and how much of the window the longest request fills."""
    w0, w1 = window
    if w1 <= w0:
        return result.Concurrency(), 0.0
    mean = float(occupancy.means(np.array([w0, w1]))[0])
    spans = [
        (request.end - request.sent) / NS
        for request in record.requests
        if request.end is not None and request.sent is not None and w0 <= request.end < w1
    ]
    window_s = (w1 - w0) / NS
    # X * R = (n / window) * (sum / n)
    residual = abs(sum(spans) / window_s - mean) / mean if mean > 0 else None
    across = [  # also those that the window's end cut
        (end - request.sent) / NS
        for request in record.requests
        if request.sent is not None
        and request.sent < w1
        and (end := _known_end(request, record.drained)) is not None
        and end >= w0
    ]
    return (
        result.Concurrency(mean=mean, max=occupancy.highest(w0, w1), little_residual=residual),
        max(across, default=0.0) / window_s,
    )


def _known_end(request: RequestRecord, drained: int) -> int | None:
    return drained if request.failure == "unfinished" else request.end


def _finite(metrics: Mapping[str, float]) -> dict[str, float]:
    return {name: value for name, value in metrics.items() if math.isfinite(value)}


def _first_known(*values: result.Number) -> float | None:
    known = (real(value) for value in values)
    return next((value for value in known if value is not None and math.isfinite(value)), None)
