"""The table of all series: name, type, labels, buckets, meaning.

`metrics.py` records them, docs/reference/metrics.md is made from this. Names are TGI's and are
never changed, nor are labels added: dashboards and alerts match both. Source: spec/metrics.md
sections 2, 3 and 7.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import accumulate
from typing import Literal

from tgi_cli.runtime.config.resolved import RequestLimits

METHODS = ("prefill", "decode")
FAILURES = ("overloaded", "validation", "template", "incomplete", "dropped", "generation")
JOIN_REASONS = ("backpressure", "wait_exceeded", "chunking")

Bounds = Callable[[RequestLimits], tuple[float, ...]]


@dataclass(frozen=True, slots=True)
class Buckets:
    name: str  # for the reference
    bounds: Bounds


def _durations(limits: RequestLimits) -> tuple[float, ...]:
    # By repeated multiplication, as TGI does, so that the text of `le` has the same digits.
    return tuple(accumulate([1.5] * 35, lambda bound, factor: bound * factor, initial=0.0001))[1:]


DURATIONS = Buckets("0.0001 s times 1.5, 35 times", _durations)
INPUTS = Buckets(
    "hundredths of `max_input_tokens`",
    lambda limits: tuple(limits.max_input_tokens / 100 * n for n in range(1, 101)),
)
TOTALS = Buckets(
    "hundredths of `max_total_tokens`",
    lambda limits: tuple(limits.max_total_tokens / 100 * n for n in range(1, 101)),
)
SIZES = Buckets("1, 2, … 1024", lambda limits: tuple(range(1, 1025)))
SKIPPED = Buckets("0, 1, … 10", lambda limits: tuple(range(11)))


@dataclass(frozen=True, slots=True)
class Family:
    """One name, and every series that it has from the first scrape on."""

    name: str
    kind: Literal["counter", "gauge", "histogram"]
    help: str
    label: str | None = None
    label_values: tuple[str, ...] = ()
    buckets: Buckets | None = None


def _counter(name: str, help_text: str) -> Family:
    return Family(name, "counter", help_text)


def _gauge(name: str, help_text: str) -> Family:
    return Family(name, "gauge", help_text)


def _histogram(name: str, help_text: str, buckets: Buckets = DURATIONS) -> Family:
    return Family(name, "histogram", help_text, buckets=buckets)


def _by_method(name: str, help_text: str) -> Family:
    is_duration = name.endswith("_duration")
    kind: Literal["counter", "histogram"] = "histogram" if is_duration else "counter"
    return Family(name, kind, help_text, "method", METHODS, DURATIONS if is_duration else None)


FAMILIES = (
    _counter(
        "tgi_request_count",
        "Generations begun, failed ones too. Chat, completions, Vertex and chat_tokenize calls "
        "count once more as calls.",
    ),
    _counter("tgi_request_success", "Generations that ended as asked."),
    Family(
        "tgi_request_failure",
        "counter",
        "Generations that did not, by reason.",
        "err",
        FAILURES,
    ),
    _histogram("tgi_request_duration", "Seconds from receipt to end, of successful requests."),
    _histogram("tgi_request_duration_seconds", "The same as tgi_request_duration."),
    _histogram("tgi_request_validation_duration", "Seconds from receipt to the queue."),
    _histogram("tgi_request_queue_duration", "Seconds from the queue to the first batch."),
    _histogram("tgi_request_inference_duration", "Seconds from the first batch to the end."),
    _histogram(
        "tgi_request_mean_time_per_token_duration",
        "Seconds of inference per generated token, one mean for each successful request.",
    ),
    _histogram(
        "tgi_request_time_to_first_token_duration",
        "Seconds from receipt to the first token, of all requests that got one.",
    ),
    _histogram("tgi_request_inter_token_duration", "Seconds from one token to the next."),
    _histogram("tgi_request_input_length", "Prompt tokens of accepted requests.", INPUTS),
    _histogram("tgi_request_max_new_tokens", "Tokens that a request may generate.", TOTALS),
    _histogram("tgi_request_generated_tokens", "Tokens that a request generated.", TOTALS),
    _histogram(
        "tgi_request_skipped_tokens",
        "Tokens beyond the first that a sequence got in one step; 0 without speculation.",
        SKIPPED,
    ),
    _counter("tgi_prompt_tokens", "Prompt tokens of accepted requests, summed."),
    _counter("tgi_generated_tokens", "Tokens that the engine generated."),
    _gauge("tgi_queue_size", "Requests that wait for their first step."),
    _gauge("tgi_requests_waiting", "The same as tgi_queue_size."),
    _gauge("tgi_requests_running", "Sequences in the running batch."),
    _histogram("tgi_batch_next_size", "Requests taken from the queue at once.", SIZES),
    _gauge("tgi_batch_current_size", "Sequences in the running batch."),
    _gauge("tgi_batch_current_max_tokens", "Token slots reserved by the running batch."),
    _gauge("tgi_batch_max_total_tokens", "Token slots that there are for all requests."),
    _gauge("tgi_batch_total_tokens", "Described by TGI and never set."),
    Family(
        "tgi_batch_concat",
        "counter",
        "Times that new requests joined a running batch, by reason.",
        "reason",
        JOIN_REASONS,
    ),
    _by_method("tgi_batch_inference_count", "Steps begun; one with prompt tokens is a prefill."),
    _by_method("tgi_batch_inference_success", "Steps that did not fail."),
    _by_method("tgi_batch_inference_failure", "Steps that failed all of their requests."),
    _by_method("tgi_batch_inference_duration", "Seconds of a whole successful step."),
    _by_method("tgi_batch_forward_duration", "Seconds of a step in the model."),
    _by_method("tgi_batch_decode_duration", "Seconds of a step from logits to tokens."),
    _by_method("tgi_batch_filter_duration", "Seconds of a step for planning and bookkeeping."),
    _by_method("tgi_batch_concat_duration", "Seconds of bookkeeping of steps with newcomers."),
    _gauge("tgi_kv_cache_blocks_total", "Blocks of the KV cache."),
    _gauge("tgi_kv_cache_blocks_used", "Blocks of the KV cache that requests hold."),
    _counter("tgi_prefix_cache_hit_tokens", "Prompt tokens whose KV was found in the cache."),
    _counter("tgi_prefix_cache_query_tokens", "Prompt tokens that were looked up in the cache."),
    _counter("tgi_speculation_accepted_tokens", "Proposed tokens that were right."),
    _counter("tgi_speculation_proposed_tokens", "Tokens proposed by speculation."),
)
