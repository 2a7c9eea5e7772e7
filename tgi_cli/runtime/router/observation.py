"""What is recorded of one generation, from its receipt to its end: times, metrics, log, spans.

`Service` and `Generation` say what happens; what that means for an operator is decided here. No
text of a user reaches the log above DEBUG: of parameters, texts and lists are shown as counts.
"""

from __future__ import annotations

import logging
import time

import msgspec

from tgi_cli.errors import RequestError, UnhealthyError
from tgi_cli.runtime.logs import Span, current_spans, duration_text, in_spans
from tgi_cli.runtime.router.metrics import Metrics, failure_of
from tgi_cli.runtime.router.schemas.generate import GenerateParameters
from tgi_cli.runtime.router.timing import Timing
from tgi_cli.runtime.router.tracing import Tracing

_log = logging.getLogger(__name__)
_MAX_SHOWN_CHARACTERS = 1000  # of a prompt or an output, at DEBUG
_NO_ROUTE = Span("generate")


class Observation:
    """One generation. `is_part`: it is one of several runs that count as one request."""

    __slots__ = (
        "_metrics",
        "_newest_ns",
        "_parameters",
        "_spans",
        "_trace",
        "is_part",
        "timing",
    )

    def __init__(
        self,
        metrics: Metrics,
        tracing: Tracing | None,
        parameters: GenerateParameters,
        *,
        is_part: bool,
    ) -> None:
        self.timing = Timing()
        self._metrics = metrics
        self._parameters = parameters
        self.is_part = is_part
        self._newest_ns = 0  # when the newest token came
        self._spans = current_spans()
        self._trace = None if tracing is None else tracing.generation()

    def received(self, text: str) -> None:
        if _log.isEnabledFor(logging.DEBUG):
            _log.debug("Input: %s", text[:_MAX_SHOWN_CHARACTERS])

    def queued(self, request_id: int, num_prompt_tokens: int, max_new_tokens: int) -> None:
        """The request is valid; the next that is heard of it comes from the engine."""
        self.timing.mark_queued()
        self._metrics.request_queued(num_prompt_tokens, max_new_tokens)
        if self._trace is not None:
            self._trace.queued(request_id, self.timing.queued_ns)

    def tokens_came(self, count: int) -> None:
        """Record the time to the first token, or from one token to the next."""
        now_ns = time.monotonic_ns()
        if self._newest_ns:
            self._metrics.inter_token_duration.observe((now_ns - self._newest_ns) / 1e9 / count)
        else:
            ttft_s = (now_ns - self.timing.received_ns) / 1e9
            self._metrics.observe("tgi_request_time_to_first_token_duration", ttft_s)
        self._newest_ns = now_ns

    def ended(self, started_ns: int) -> None:
        """The last token has come; `started_ns` is when the first step that worked on it began."""
        self.timing.mark_ended(started_ns)
        if self._trace is not None:
            self._trace.ended(self.timing.ended_ns)

    def succeeded(self, num_tokens: int, seed: int | None, output: str) -> None:
        """Put the request into metrics, log and trace. Of several runs, only the best one is."""
        timing = self.timing
        self._metrics.request_succeeded(timing, num_tokens)
        if _log.isEnabledFor(logging.DEBUG):
            _log.debug("Output: %s", output[:_MAX_SHOWN_CHARACTERS], extra=in_spans(*self._spans))
        if self._trace is None and not _log.isEnabledFor(logging.INFO):
            return
        durations_ns = {
            "total_time": timing.total_ns,
            "validation_time": timing.validation_ns,
            "queue_time": timing.queue_ns,
            "inference_time": timing.inference_ns,
            "time_per_token": timing.inference_ns // max(1, num_tokens),
        }
        facts: dict[str, object] = {"parameters": parameters_text(self._parameters)}
        facts |= {name: duration_text(ns) for name, ns in durations_ns.items()}
        facts["seed"] = seed
        if self._trace is not None:
            self._trace.succeeded(facts)
        # TGI has the durations as text alone; whoever reads the log as JSON wants to add them up.
        facts |= {f"{name}_s": ns / 1e9 for name, ns in durations_ns.items()}
        *outer, route = self._spans or (_NO_ROUTE,)
        span = Span(route.name, route.fields | facts)
        _log.info("Success", extra=in_spans(*outer, span))

    def failed(self, error: BaseException | None) -> None:
        """The generation ended without its last token: `error`, or None if nobody waits for it."""
        label = failure_of(error)
        if not self.is_part:
            self._metrics.fail(label)
        if self._trace is not None:
            self._trace.failed(label)


def log_error(error: RequestError) -> None:
    """Log what the client is told, without what that quotes of its request.

    A probe's answer is no event of its own: what made the server unhealthy has been logged.
    """
    level = logging.DEBUG if isinstance(error, UnhealthyError) else logging.ERROR
    _log.log(level, error.log_text, extra={"error_type": error.kind})


def parameters_text(parameters: GenerateParameters) -> str:
    """Return what was given: numbers and switches as they are, of all else the size."""
    shown = (
        f"{name}: {_shown(value)}"
        for name, value in msgspec.structs.asdict(parameters).items()
        if value is not None
    )
    return f"GenerateParameters {{ {', '.join(shown)} }}"


def _shown(value: object) -> str:
    match value:
        case bool():
            return str(value).lower()
        case int() | float():
            return str(value)
        case str():
            return f"({len(value)} characters)"
        case list() | dict() | tuple():
            return f"({len(value)} items)"
        case _:
            return "(given)"
