"""The numbers of a stage by name, as `--slo`, `--ci-metric` and `compare` write them.

A latency needs a statistic: `ttft.p99`, `e2e_service.mean`. Latencies are those of all requests,
failures infinite. Shares are from 0 to 1. Spec: bench.md sections 3 and 9.
"""

from __future__ import annotations

from collections.abc import Callable

from tgi_cli.runtime.bench.result import Number, Stage, Summary
from tgi_cli.runtime.bench.statistics import PERCENTILES

LATENCIES = ("ttft", "ttfc", "e2e", "tpot", "tpot_n1", "itl", "icl", "stall")
SERVICE_LATENCIES = ("ttft", "ttfc", "e2e")
CLIENT_TIMES = ("lag", "client_queue", "connect")
STATISTICS = (*PERCENTILES, "mean", "min", "max")

HEADLINES = (
    *("out_tok_s", "req_s", "ttft.p50", "ttft.p99", "tpot.p50", "tpot.p99", "itl.p50", "itl.p99"),
    *("e2e.p50", "e2e.p99", "error_rate", "goodput"),
)
"""The numbers by which stages are compared and repeats are summed up."""


def error_rate(stage: Stage) -> float | None:
    """Return the share of requests that failed, were never sent or never ended.

    Those that the client hung up on by itself aren't among them.
    """
    counts = stage.counts
    num_bad = counts.failed + counts.unfinished + counts.dropped
    attempted = counts.ok + num_bad
    return num_bad / attempted if attempted else None


_VALUES: dict[str, Callable[[Stage], Number]] = {
    "out_tok_s": lambda stage: stage.throughput.all.out_tok_s,
    "in_tok_s": lambda stage: stage.throughput.all.in_tok_s,
    "req_s": lambda stage: stage.throughput.all.req_s,
    "peak_out_tok_s": lambda stage: stage.throughput.peak_out_tok_s,
    "offered_req_s": lambda stage: stage.throughput.offered_req_s,
    "sent_req_s": lambda stage: stage.throughput.sent_req_s,
    "concurrency": lambda stage: stage.concurrency.mean,
    "error_rate": error_rate,
    "goodput": lambda stage: stage.goodput.fraction,
    "good_req_s": lambda stage: stage.goodput.req_s,
    "good_tok_s": lambda stage: stage.goodput.tok_s,
    "cached_fraction": lambda stage: stage.tokens.cached_fraction,
}

GOODPUTS = frozenset({"goodput", "good_req_s", "good_tok_s"})
SHARES = frozenset({"error_rate", "goodput", "cached_fraction"})
HIGHER_IS_BETTER = frozenset(
    {"out_tok_s", "in_tok_s", "req_s", "peak_out_tok_s", "sent_req_s", "cached_fraction"} | GOODPUTS
)
PLAIN_NAMES = tuple(_VALUES)
TIME_NAMES = (
    *LATENCIES,
    *(f"{name}_service" for name in SERVICE_LATENCIES),
    *CLIENT_TIMES,
    "server_queue",
)


def is_time(name: str) -> bool:
    """Return whether the number is in seconds."""
    return name.partition(".")[0] in TIME_NAMES


def value_of(stage: Stage, name: str) -> Number:
    """Return a number of the stage; None: not known. The name must be one of ours."""
    if name in _VALUES:
        return _VALUES[name](stage)
    metric, _, statistic = name.partition(".")
    summary = summary_of(stage, metric)
    if summary is None:
        return None
    number: Number = getattr(summary, "p999" if statistic == "p99.9" else statistic)
    return number


def is_proven(stage: Stage, name: str) -> bool:
    """Return whether the number is no percentile, or has enough values for an interval."""
    metric, _, statistic = name.partition(".")
    if statistic not in PERCENTILES:
        return True
    summary = summary_of(stage, metric)
    return summary is not None and statistic in summary.ci95


def summary_of(stage: Stage, metric: str) -> Summary | None:
    """Return the population of a time by its name; None: nobody told it."""
    assert metric in TIME_NAMES, metric
    found: Summary | None
    if metric in CLIENT_TIMES:
        found = getattr(stage.generator, metric)
    elif metric == "server_queue":
        found = stage.latency.server_queue
    elif metric in LATENCIES:
        found = getattr(stage.latency, metric).all
    else:
        found = getattr(stage.latency, metric.removesuffix("_service")).service
    return found
