"""`summary.csv`: a row for each stage, the same columns in every file."""

from __future__ import annotations

import csv
import io

from tgi_cli.runtime.bench.result import Result, Stage
from tgi_cli.runtime.bench.stage_values import error_rate

_METRICS = ("ttft", "ttfc", "e2e", "tpot", "tpot_n1", "itl", "icl", "stall")
_NUMBERS = ("n", "mean", "sd", "min", "max", "p50", "p90", "p95", "p99", "p999")


def render_csv(result: Result) -> str:
    """Return the table; latencies in seconds, `inf` where failures reach, nothing where unknown."""
    rows = [_row(stage) for stage in result.stages]
    out = io.StringIO()
    writer = csv.DictWriter(out, fieldnames=list(rows[0]) if rows else [], lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return out.getvalue()


def _row(stage: Stage) -> dict[str, object]:
    queued = stage.latency.server_queue
    row: dict[str, object] = {
        "stage": stage.key,
        "repeat": stage.repeat,
        "verdict": stage.verdict,
        "stable": stage.is_stable,
        "planned": stage.counts.planned,
        "ok": stage.counts.ok,
        "failed": stage.counts.failed,
        "unfinished": stage.counts.unfinished,
        "dropped": stage.counts.dropped,
        "error_rate": error_rate(stage),
        "req_s": stage.throughput.all.req_s,
        "offered_req_s": stage.throughput.offered_req_s,
        "out_tok_s": stage.throughput.all.out_tok_s,
        "out_tok_s_steady": stage.throughput.steady.out_tok_s,
        "in_tok_s": stage.throughput.all.in_tok_s,
        "peak_out_tok_s": stage.throughput.peak_out_tok_s,
        "goodput": stage.goodput.fraction,
        "concurrency_mean": stage.concurrency.mean,
        "lag_p99": stage.generator.lag.p99,
        "client_queue_p99": stage.generator.client_queue.p99,
        "connect_p99": stage.generator.connect.p99,
        "server_queue_mean": None if queued is None else queued.mean,
        "server_queue_p99": None if queued is None else queued.p99,
    }
    for metric in _METRICS:
        latency = getattr(stage.latency, metric)
        for number in _NUMBERS:
            row[f"{metric}_{number.replace('p999', 'p99.9')}"] = getattr(latency.all, number)
    return row
