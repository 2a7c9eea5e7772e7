"""What happened, as Prometheus series under TGI's names, all present from the first scrape.

The table of series is `metric_families.py`. A step that computes prompt tokens is a `prefill`, even
if other sequences decode in it, as in TGI; a request that ends is counted once, as a success or as
one kind of failure (`failure_of`). The process's own series are prometheus-client's.
"""

from __future__ import annotations

import asyncio

from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest

from tgi_cli.errors import GenerationError, OverloadedError, RequestError
from tgi_cli.runtime.config.resolved import RequestLimits
from tgi_cli.runtime.ipc.messages import StepOutput
from tgi_cli.runtime.router.exposition import Histogram, Labels, Value
from tgi_cli.runtime.router.metric_families import FAMILIES, METHODS, Family
from tgi_cli.runtime.router.timing import Timing

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


class Metrics:
    """All series of one server."""

    def __init__(self, limits: RequestLimits) -> None:
        self._values: dict[str, dict[Labels, Value]] = {}
        self._histograms: dict[str, dict[Labels, Histogram]] = {}
        for family in FAMILIES:
            self._declare(family, limits)
        self._registry = CollectorRegistry()
        ProcessCollector(registry=self._registry)
        # Those that every token or step changes: found once.
        self.inter_token_duration = self._histograms["tgi_request_inter_token_duration"][()]
        self._skipped_tokens = self._histograms["tgi_request_skipped_tokens"][()]

    def _declare(self, family: Family, limits: RequestLimits) -> None:
        name, label = family.name, family.label
        keys: list[Labels] = [()] if label is None else [((label, v),) for v in family.label_values]
        if family.buckets is None:
            self._values[name] = {key: Value(name, key) for key in keys}
        else:
            bounds = family.buckets.bounds(limits)
            self._histograms[name] = {key: Histogram(name, key, bounds) for key in keys}

    def count(self, name: str, amount: float = 1, **labels: str) -> None:
        self._values[name][tuple(labels.items())].number += amount

    def set(self, name: str, value: float) -> None:
        self._values[name][()].number = value

    def observe(self, name: str, value: float, **labels: str) -> None:
        self._histograms[name][tuple(labels.items())].observe(value)

    def fail(self, err: str) -> None:
        """Count a failure; `err` is one of `metric_families.FAILURES`."""
        self.count("tgi_request_failure", err=err)

    def request_queued(self, num_prompt_tokens: int, max_new_tokens: int) -> None:
        self.observe("tgi_request_input_length", num_prompt_tokens)
        self.observe("tgi_request_max_new_tokens", max_new_tokens)
        self.count("tgi_prompt_tokens", num_prompt_tokens)
        self.count("tgi_queue_size")  # until the next step says how many wait
        self.count("tgi_requests_waiting")

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
            self._count_step(step)
        num_tokens = sum(len(output.token_ids) for output in step.outputs)
        self.count("tgi_generated_tokens", num_tokens)
        if num_tokens == len(step.outputs):
            self._skipped_tokens.observe(0, num_tokens)
        else:
            for output in step.outputs:
                self._skipped_tokens.observe(max(0, len(output.token_ids) - 1))
        self.count("tgi_prefix_cache_hit_tokens", stats.num_prefix_hit_tokens)
        self.count("tgi_prefix_cache_query_tokens", stats.num_prefix_query_tokens)
        self.set("tgi_queue_size", stats.num_waiting)
        self.set("tgi_requests_waiting", stats.num_waiting)
        self.set("tgi_requests_running", stats.num_running)
        self.set("tgi_batch_current_size", stats.num_running)
        self.set("tgi_batch_current_max_tokens", stats.num_reserved_tokens)
        self.set("tgi_kv_cache_blocks_used", stats.num_blocks_used)

    def _count_step(self, step: StepOutput) -> None:
        """Count a forward pass; it failed if all that it was for did."""
        stats = step.stats
        method = step_method(step)
        self.count("tgi_batch_inference_count", method=method)
        if step.failures and not step.outputs:
            self.count("tgi_batch_inference_failure", method=method)
            return
        self.count("tgi_batch_inference_success", method=method)
        self.observe("tgi_batch_inference_duration", stats.step_s, method=method)
        self.observe("tgi_batch_forward_duration", stats.forward_s, method=method)
        self.observe("tgi_batch_decode_duration", stats.sample_s, method=method)
        rest_s = max(0.0, stats.step_s - stats.forward_s - stats.sample_s)
        self.observe("tgi_batch_filter_duration", rest_s, method=method)
        if stats.num_joined:
            self.observe("tgi_batch_next_size", stats.num_joined)
            if stats.join_reason is not None:
                self.count("tgi_batch_concat", reason=stats.join_reason)
                self.observe("tgi_batch_concat_duration", rest_s, method="decode")

    def render(self) -> bytes:
        """Return the exposition, text format 0.0.4, one blank line between families."""
        lines: list[str] = []
        for family in FAMILIES:
            lines += (f"# HELP {family.name} {family.help}", f"# TYPE {family.name} {family.kind}")
            for value in self._values.get(family.name, {}).values():
                lines += value.lines()
            for histogram in self._histograms.get(family.name, {}).values():
                lines += histogram.lines()
            lines.append("")
        return ("\n".join(lines) + "\n").encode() + generate_latest(self._registry)


def step_method(step: StepOutput) -> str:
    return METHODS[0] if step.stats.is_prefill else METHODS[1]


def failure_of(error: BaseException | None) -> str:
    """Return the label of `tgi_request_failure` for what ended a request; None is a lost client."""
    match error:
        case OverloadedError():
            return "overloaded"
        case GenerationError():
            return "generation"
        case RequestError() if error.status < 500:
            return "validation"
        case None | asyncio.CancelledError() | ConnectionError() | GeneratorExit():
            return "dropped"
        case _:
            return "incomplete"
