"""The Grafana dashboard of spec/metrics.md section 8, made from its table of panels.

Title, uid and queries are those of the dashboard that TGI's users have, so that importing this one
takes its place. Every query filters by the container that the variable `service` names.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass

_FILTER = 'container="$service"'
_WIDTH, _HEIGHT = 8, 7  # of a panel; a row of the dashboard is 24 wide


@dataclass(frozen=True)
class Panel:
    """One panel; `queries` are PromQL by what their line is called."""

    title: str
    queries: dict[str, str]
    kind: str = "timeseries"
    unit: str = "short"


def dashboard() -> str:
    """Return the dashboard in Grafana's JSON."""
    panels: list[dict[str, object]] = []
    top = 0
    for row, members in ROWS.items():
        panels.append(_place(len(panels) + 1, {"type": "row", "title": row}, 0, top, 24, 1))
        top += 1
        for index, panel in enumerate(members):
            across, down = index % 3, index // 3
            place = (across * _WIDTH, top + down * _HEIGHT, _WIDTH, _HEIGHT)
            panels.append(_place(len(panels) + 1, _panel(panel), *place))
        top += -(-len(members) // 3) * _HEIGHT
    return json.dumps({**_HEAD, "panels": panels}, indent=1, sort_keys=True) + "\n"


def _place(
    number: int, panel: dict[str, object], x: int, y: int, width: int, height: int
) -> dict[str, object]:
    return {**panel, "id": number, "gridPos": {"x": x, "y": y, "w": width, "h": height}}


def _panel(panel: Panel) -> dict[str, object]:
    is_heatmap = panel.kind == "heatmap"
    return {
        "type": panel.kind,
        "title": panel.title,
        "datasource": _SOURCE,
        "fieldConfig": {"defaults": {"unit": panel.unit}, "overrides": []},
        "targets": [
            {
                "refId": chr(ord("A") + index),
                "datasource": _SOURCE,
                "expr": query,
                "legendFormat": name,
                "format": "heatmap" if is_heatmap else "time_series",
            }
            for index, (name, query) in enumerate(panel.queries.items())
        ],
    }


def _rate(series: str, window: str = "10m", labels: str = "") -> str:
    return f"rate({series}{{{_FILTER}{labels}}}[{window}])"


def _quantile(phi: str, metric: str, labels: str = "") -> str:
    return f"histogram_quantile({phi}, sum by (le) ({_rate(f'{metric}_bucket', labels=labels)}))"


def _quantiles(title: str, metric: str, labels: str = "", unit: str = "short") -> Panel:
    lines = {"p50": "0.5", "p90": "0.9", "p99": "0.99"}
    queries = {name: _quantile(phi, metric, labels) for name, phi in lines.items()}
    return Panel(title, queries, unit=unit)


def _quantiles_and_heat(
    name: str, metric: str, labels: str = "", *, heat: str | None = None
) -> Iterator[Panel]:
    yield _quantiles(f"{name} quantiles", metric, labels, unit="s")
    heat_query = f"sum(increase({metric}_bucket{{{_FILTER}{labels}}}[5m])) by (le)"
    yield Panel(heat or f"{name} latency", {"{{le}}": heat_query}, "heatmap", "s")


def _increase(series: str, by: str | None = None) -> str:
    query = f"sum(increase({series}{{{_FILTER}}}[1m]))"
    return query if by is None else f"{query} by ({by})"


_PREFILL, _DECODE = ',method="prefill"', ',method="decode"'
_SOURCE = {"type": "prometheus", "uid": "${datasource}"}
_HEAD = {
    "title": "Text Generation Inference",
    "uid": "RHSk7EL4kdqsd",
    "schemaVersion": 39,
    "editable": True,
    "refresh": "10s",
    "time": {"from": "now-30m", "to": "now"},
    "templating": {
        "list": [
            {"name": "datasource", "type": "datasource", "query": "prometheus"},
            {
                "name": "service",
                "type": "query",
                "datasource": _SOURCE,
                "definition": "label_values(tgi_request_count, container)",
                "query": {"query": "label_values(tgi_request_count, container)", "refId": "A"},
                "refresh": 2,
            },
        ]
    },
}

ROWS: dict[str, list[Panel]] = {
    "Overview": [
        Panel(
            "Time to first token",
            {
                "p50": f"1000 * {_quantile('0.5', 'tgi_request_queue_duration')} + "
                f"1000 * {_quantile('0.5', 'tgi_batch_inference_duration', _PREFILL)}"
            },
            "stat",
            "ms",
        ),
        Panel(
            "Decode per-token latency",
            {"p50": f"1000 * {_quantile('0.5', 'tgi_batch_forward_duration', _DECODE)}"},
            "stat",
            "ms",
        ),
        Panel(
            "Throughput (generated tok/s)",
            {
                "tok/s": f"sum({_rate('tgi_request_generated_tokens_sum')} / "
                f"{_rate('tgi_request_generated_tokens_count')})"
            },
            "stat",
        ),
        _quantiles("Number of tokens per prompt", "tgi_request_input_length"),
        _quantiles("Number of generated tokens per request", "tgi_request_generated_tokens"),
    ],
    "General": [
        Panel(
            "Requests",
            {
                "Success": _increase("tgi_request_success"),
                "Error: {{err}}": _increase("tgi_request_failure", "err"),
            },
        ),
        *_quantiles_and_heat(
            "Mean Time Per Token",
            "tgi_request_mean_time_per_token_duration",
            heat="Mean Time Per Token",
        ),
        Panel("Number of replicas", {"replicas": f"count(tgi_request_count{{{_FILTER}}})"}),
        Panel("Queue Size", {"waiting": f"sum(tgi_queue_size{{{_FILTER}}})"}, "gauge"),
    ],
    "Batching": [
        Panel(
            "Max tokens per batch", {"tokens": f"avg(tgi_batch_current_max_tokens{{{_FILTER}}})"}
        ),
        _quantiles("Speculated Tokens", "tgi_request_skipped_tokens"),
        _quantiles("Prompt Tokens", "tgi_request_input_length"),
        _quantiles("Latency quantiles", "tgi_request_duration", unit="s"),
        Panel("Batch Size", {"sequences": f"avg(tgi_batch_current_size{{{_FILTER}}})"}),
        Panel("Concatenates", {"Reason: {{reason}}": _increase("tgi_batch_concat", "reason")}),
        _quantiles("Queue quantiles", "tgi_request_queue_duration", unit="s"),
    ],
    "Prefill": [*_quantiles_and_heat("Prefill", "tgi_batch_inference_duration", _PREFILL)],
    "Decode": [*_quantiles_and_heat("Decode", "tgi_batch_inference_duration", _DECODE)],
    "Debug": [
        *_quantiles_and_heat("Forward", "tgi_batch_forward_duration", _DECODE),
        *_quantiles_and_heat("Token Decode", "tgi_batch_decode_duration", _DECODE),
        *_quantiles_and_heat("Filter Batch", "tgi_batch_filter_duration", _DECODE),
        *_quantiles_and_heat("Batch Concat", "tgi_batch_concat_duration", _DECODE),
    ],
}
