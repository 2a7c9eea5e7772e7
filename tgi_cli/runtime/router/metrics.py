"""The Prometheus series of spec/metrics.md, under TGI's names, present from the first scrape.

prometheus-client adds `_total` and `_created` to counters, which dashboards written for TGI don't
know, so these series are rendered here; the process's own series are that library's.
"""

from __future__ import annotations

from bisect import bisect_left
from itertools import accumulate

from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest

from tgi_cli.runtime.ipc.messages import StepOutput
from tgi_cli.runtime.router.timing import Timing

DURATION_BUCKETS = tuple(
    accumulate([1.5] * 35, lambda bound, factor: bound * factor, initial=0.0001)
)[1:]
_METHODS = ("prefill", "decode")
_FAILURES = ("overloaded", "validation", "template", "incomplete", "dropped", "generation")

Labels = tuple[tuple[str, str], ...]


class Histogram:
    def __init__(self, bounds: tuple[float, ...]) -> None:
        self._bounds = bounds
        self._counts = [0] * (len(bounds) + 1)
        self._sum = 0.0

    def observe(self, value: float) -> None:
        self._counts[bisect_left(self._bounds, value)] += 1
        self._sum += value

    def render(self, name: str, labels: Labels) -> list[str]:
        bounds = [*map(_number, self._bounds), "+Inf"]
        lines = [
            f"{name}_bucket{_labels((*labels, ('le', bound)))} {count}"
            for bound, count in zip(bounds, accumulate(self._counts), strict=True)
        ]
        lines.append(f"{name}_sum{_labels(labels)} {_number(self._sum)}")
        lines.append(f"{name}_count{_labels(labels)} {sum(self._counts)}")
        return lines


class Metrics:
    """All series of one server. Counters and gauges are numbers by name and labels."""

    def __init__(self, *, max_input_tokens: int, max_total_tokens: int) -> None:
        self._values: dict[str, dict[Labels, float]] = {}
        self._types: dict[str, str] = {}
        self._histograms: dict[str, dict[Labels, Histogram]] = {}
        self._registry = CollectorRegistry()
        ProcessCollector(registry=self._registry)
        self._declare(max_input_tokens, max_total_tokens)
        # The one that is observed for every token: found once.
        self.inter_token_duration = self._histograms["tgi_request_inter_token_duration"][()]

    def _declare(self, max_input_tokens: int, max_total_tokens: int) -> None:
        for name in (
            "tgi_request_count", "tgi_request_success", "tgi_prefix_cache_hit_tokens",
            "tgi_prefix_cache_query_tokens", "tgi_prompt_tokens", "tgi_generated_tokens",
            "tgi_speculation_accepted_tokens", "tgi_speculation_proposed_tokens",
        ):  # fmt: skip
            self._add_value(name, "counter", ())
        self._add_value("tgi_request_failure", "counter", _FAILURES, "err")
        self._add_value(
            "tgi_batch_concat", "counter", ("backpressure", "wait_exceeded", "chunking"), "reason"
        )
        for event in ("count", "success", "failure"):
            self._add_value(f"tgi_batch_inference_{event}", "counter", _METHODS, "method")
        for name in (
            "tgi_queue_size", "tgi_batch_current_size", "tgi_batch_current_max_tokens",
            "tgi_batch_max_total_tokens", "tgi_batch_total_tokens", "tgi_kv_cache_blocks_total",
            "tgi_kv_cache_blocks_used", "tgi_requests_running", "tgi_requests_waiting",
        ):  # fmt: skip
            self._add_value(name, "gauge", ())
        for part in ("", "_validation", "_queue", "_inference", "_mean_time_per_token"):
            self._add_histogram(f"tgi_request{part}_duration", DURATION_BUCKETS)
        for part in ("request_duration_seconds", "request_time_to_first_token_duration",
                     "request_inter_token_duration"):  # fmt: skip
            self._add_histogram(f"tgi_{part}", DURATION_BUCKETS)
        for part in ("inference", "forward", "decode", "filter", "concat"):
            self._add_histogram(f"tgi_batch_{part}_duration", DURATION_BUCKETS, _METHODS)
        hundredths = tuple(range(1, 101))
        inputs = tuple(max_input_tokens / 100 * n for n in hundredths)
        totals = tuple(max_total_tokens / 100 * n for n in hundredths)
        self._add_histogram("tgi_request_input_length", inputs)
        self._add_histogram("tgi_request_generated_tokens", totals)
        self._add_histogram("tgi_request_max_new_tokens", totals)
        self._add_histogram("tgi_batch_next_size", tuple(range(1, 1025)))
        self._add_histogram("tgi_request_skipped_tokens", tuple(range(11)))

    def _add_value(
        self, name: str, kind: str, label_values: tuple[str, ...], label: str | None = None
    ) -> None:
        self._types[name] = kind
        keys: list[Labels] = [((label, v),) for v in label_values] if label is not None else [()]
        self._values[name] = dict.fromkeys(keys, 0.0)

    def _add_histogram(
        self, name: str, bounds: tuple[float, ...], methods: tuple[str, ...] | None = None
    ) -> None:
        keys: list[Labels] = [(("method", m),) for m in methods] if methods is not None else [()]
        self._histograms[name] = {key: Histogram(bounds) for key in keys}

    def count(self, name: str, amount: float = 1, **labels: str) -> None:
        self._values[name][tuple(labels.items())] += amount

    def set(self, name: str, value: float) -> None:
        self._values[name][()] = value

    def observe(self, name: str, value: float, **labels: str) -> None:
        self._histograms[name][tuple(labels.items())].observe(value)

    def fail(self, err: str) -> None:
        self.count("tgi_request_failure", err=err)

    def request_succeeded(self, timing: Timing, num_tokens: int) -> None:
        self.count("tgi_request_success")
        self.observe("tgi_request_duration", timing.total_s)
        self.observe("tgi_request_duration_seconds", timing.total_s)
        self.observe("tgi_request_validation_duration", timing.validation_s)
        self.observe("tgi_request_queue_duration", timing.queue_s)
        self.observe("tgi_request_inference_duration", timing.inference_s)
        per_token = timing.time_per_token_s(num_tokens)
        self.observe("tgi_request_mean_time_per_token_duration", per_token)
        self.observe("tgi_request_generated_tokens", num_tokens)

    def step_done(self, step: StepOutput) -> None:
        """Record one engine step; the engine tells what it did, the router what it means."""
        stats = step.stats
        if stats.batch_size:
            method = "prefill" if stats.is_prefill else "decode"
            self.count("tgi_batch_inference_count", method=method)
            self.count("tgi_batch_inference_success", method=method)
            self.observe("tgi_batch_inference_duration", stats.step_s, method=method)
            self.observe("tgi_batch_forward_duration", stats.forward_s, method=method)
            self.observe("tgi_batch_decode_duration", stats.sample_s, method=method)
            rest = max(0.0, stats.step_s - stats.forward_s - stats.sample_s)
            self.observe("tgi_batch_filter_duration", rest, method=method)
            if stats.num_joined:
                self.observe("tgi_batch_next_size", stats.num_joined)
                if stats.num_joined < stats.batch_size:
                    self.count("tgi_batch_concat", reason="chunking")
                    self.observe("tgi_batch_concat_duration", rest, method="decode")
        if step.failures:
            self.count("tgi_request_failure", len(step.failures), err="generation")
            if not stats.batch_size:
                self.count("tgi_batch_inference_count", method="decode")
                self.count("tgi_batch_inference_failure", method="decode")
        num_tokens = sum(len(output.token_ids) for output in step.outputs)
        self.count("tgi_generated_tokens", num_tokens)
        self.count("tgi_prompt_tokens", stats.num_prefill_tokens)
        self.set("tgi_queue_size", stats.num_waiting)
        self.set("tgi_requests_waiting", stats.num_waiting)
        self.set("tgi_requests_running", stats.num_running)
        self.set("tgi_batch_current_size", stats.num_running)
        self.set("tgi_batch_current_max_tokens", stats.num_reserved_tokens)
        self.set("tgi_kv_cache_blocks_used", stats.num_blocks_used)

    def render(self) -> bytes:
        """Return the exposition, text format 0.0.4."""
        lines: list[str] = []
        for name, values in self._values.items():
            lines.append(f"# TYPE {name} {self._types[name]}")
            lines += [f"{name}{_labels(key)} {_number(value)}" for key, value in values.items()]
        for name, histograms in self._histograms.items():
            lines.append(f"# TYPE {name} histogram")
            for key, histogram in histograms.items():
                lines += histogram.render(name, key)
        return ("\n".join(lines) + "\n").encode() + generate_latest(self._registry)


def _labels(labels: Labels) -> str:
    if not labels:
        return ""
    return "{" + ",".join(f'{name}="{value}"' for name, value in labels) + "}"


def _number(value: float) -> str:
    return str(int(value)) if value == int(value) else repr(value)
