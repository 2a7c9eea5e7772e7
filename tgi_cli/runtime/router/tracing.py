"""Spans over OTLP (spec/metrics.md section 6), for a server with `--otlp-endpoint`.

    POST /generate (server, child of the caller's traceparent)
    └── generate
        ├── validate ── tokenize
        ├── schedule
        ├── queued, then infer ◄──links──► batch ── prefill or decode     one batch for each step
        └── async_stream

Without an endpoint there is no `Tracing` and nothing of OpenTelemetry is imported. A thread of its
own exports the spans in batches; when the collector is away or slow, spans are lost, never time.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import re
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING

from tgi_cli import __version__
from tgi_cli.errors import MissingExtraError
from tgi_cli.runtime.config.resolved import RouterConfig
from tgi_cli.runtime.ipc.messages import StepOutput
from tgi_cli.runtime.router.metrics import step_method

if TYPE_CHECKING:
    from opentelemetry.context import Context
    from opentelemetry.trace import Span, SpanContext

_EXPORT_TIMEOUT_S = 5.0
_CLOSE_TIMEOUT_S = 3.0
# Version 00 has just these four fields; later ones may add more behind a hyphen.
_TRACEPARENT = re.compile(
    r"(?P<version>[0-9a-f]{2})-(?P<trace>[0-9a-f]{32})-(?P<span>[0-9a-f]{16})-[0-9a-f]{2}(-.*)?"
)


def start_tracing(config: RouterConfig) -> Tracing | None:
    """Return the server's tracing, if it is configured.

    Raises:
        MissingExtraError: OpenTelemetry isn't installed.
    """
    if config.otlp_endpoint is None:
        return None
    check_tracing(config)
    return Tracing(config.otlp_endpoint, config.otlp_service_name)


def check_tracing(config: RouterConfig) -> None:
    """Find out at the start, before a model is loaded, whether spans can be sent.

    Raises:
        MissingExtraError: OpenTelemetry isn't installed.
    """
    if config.otlp_endpoint is None:
        return
    try:
        import opentelemetry.exporter.otlp.proto.grpc.trace_exporter
        import opentelemetry.sdk.trace  # noqa: F401 - only whether they are there
    except ImportError as exc:
        raise MissingExtraError(
            "--otlp-endpoint needs OpenTelemetry, which isn't installed.",
            hint="Install it with: pip install 'tgi-cli[otel]'",
        ) from exc


def parse_traceparent(header: str | None) -> tuple[str, str] | None:
    """Return the trace's and the parent span's id, in hex, or None for what is no `traceparent`.

    https://www.w3.org/TR/trace-context/
    """
    match = _TRACEPARENT.fullmatch(header.strip()) if header is not None else None
    if match is None or match["version"] == "ff" or (match["version"] == "00" and match[4]):
        return None
    if not match["trace"].strip("0") or not match["span"].strip("0"):
        return None
    return match["trace"], match["span"]


class Tracing:
    """Makes spans and sends them to one collector."""

    def __init__(self, endpoint: str, service_name: str) -> None:
        from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
        from opentelemetry.sdk.trace.sampling import ALWAYS_ON

        # Under load without a collector it would say so for every span.
        logging.getLogger("opentelemetry.sdk._shared_internal").setLevel(logging.ERROR)
        self._exporter = OTLPSpanExporter(
            endpoint, insecure=not endpoint.startswith("https://"), timeout=_EXPORT_TIMEOUT_S
        )
        resource = Resource.create({"service.name": service_name, "service.version": __version__})
        # Not at exit: `close` has ended it by then, or has given up.
        self._provider = TracerProvider(ALWAYS_ON, resource, shutdown_on_exit=False)
        self._provider.add_span_processor(BatchSpanProcessor(self._exporter))
        self.tracer = self._provider.get_tracer("tgi_cli")
        self.open: dict[int, GenerationTrace] = {}  # by request id

    async def close(self) -> None:
        """Send what there is still to send, within a time limit."""
        loop, is_done = asyncio.get_running_loop(), asyncio.Event()

        def shut_down() -> None:
            self._provider.shutdown()
            with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
                loop.call_soon_threadsafe(is_done.set)

        threading.Thread(target=shut_down, name="end-tracing", daemon=True).start()
        try:
            async with asyncio.timeout(_CLOSE_TIMEOUT_S):
                await is_done.wait()
        except TimeoutError:
            self._exporter.shutdown(timeout_millis=0)  # ends its waiting for the collector

    @contextmanager
    def span(self, name: str) -> Iterator[Span]:
        """Make a span around the block, a child of the one that the block is in."""
        with self.tracer.start_as_current_span(
            name,
            # An exception's text and lines may quote a request: `failed` says which kind it was.
            record_exception=False,
            set_status_on_exception=False,
        ) as span:
            yield span

    @contextmanager
    def server_span(
        self, name: str, attributes: Mapping[str, str], parent: tuple[str, str] | None
    ) -> Iterator[Span]:
        """Make the outermost span of a request, a child of the caller's if it named one."""
        from opentelemetry.trace import SpanKind

        with self.tracer.start_as_current_span(
            name,
            _remote_context(parent),
            SpanKind.SERVER,
            attributes,
            record_exception=False,
            set_status_on_exception=False,
        ) as span:
            yield span

    def generation(self) -> GenerationTrace:
        """Return what traces a generation of the request that is being handled."""
        return GenerationTrace(self)

    def step_done(self, step: StepOutput) -> None:
        """Make the spans of a step, and link them with the requests that were in it."""
        from opentelemetry.trace import Link, set_span_in_context

        if not step.stats.batch_size:
            return
        for request_id in step.started:
            if (trace := self.open.get(request_id)) is not None:
                trace.started(step.start_ns)
        ids = {output.request_id for output in step.outputs} | set(step.started)
        ids |= {failure.request_id for failure in step.failures}
        infers = [trace.infer for i in ids if (trace := self.open.get(i)) and trace.infer]
        start_ns = wall_ns(step.start_ns)
        end_ns = start_ns + int(step.stats.step_s * 1e9)
        batch = self.tracer.start_span(
            "batch",
            _remote_context(None),  # of no request: it works for all of them
            links=[Link(infer.get_span_context()) for infer in infers],
            attributes={"batch_size": step.stats.batch_size},
            start_time=start_ns,
        )
        call = self.tracer.start_span(
            step_method(step), set_span_in_context(batch), start_time=start_ns
        )
        call.end(end_ns)
        batch.end(end_ns)
        for infer in infers:
            infer.add_link(batch.get_span_context())


class GenerationTrace:
    """The spans of one generation: `queued` until its first step, then `infer`."""

    __slots__ = ("_context", "_queued", "_request_id", "_route", "_tracing", "infer")

    def __init__(self, tracing: Tracing) -> None:
        from opentelemetry.context import get_current
        from opentelemetry.trace import get_current_span

        self._tracing = tracing
        self._context: Context = get_current()
        self._route: Span = get_current_span()
        self._queued: Span | None = None
        self._request_id = -1
        self.infer: Span | None = None

    def queued(self, request_id: int, queued_ns: int) -> None:
        self._request_id = request_id
        self._queued = self._start("queued", queued_ns)
        self._tracing.open[request_id] = self

    def started(self, started_ns: int) -> None:
        self._end_queued(started_ns)
        self.infer = self._start("infer", started_ns)

    def ended(self, ended_ns: int) -> None:
        self._tracing.open.pop(self._request_id, None)
        self._end_queued(ended_ns)
        if self.infer is not None:
            self.infer.end(wall_ns(ended_ns))

    def succeeded(self, facts: Mapping[str, object]) -> None:
        """Put what is known of the request on its route's span."""
        for name, value in facts.items():
            if value is not None:  # as text: a seed has 64 bits, an attribute only 63
                self._route.set_attribute(name, str(value))

    def failed(self, label: str) -> None:
        from opentelemetry.trace import StatusCode

        for span in (self.infer or self._queued, self._route):
            if span is not None:
                span.set_status(StatusCode.ERROR, label)
        self.ended(time.monotonic_ns())

    def _start(self, name: str, start_ns: int) -> Span:
        return self._tracing.tracer.start_span(name, self._context, start_time=wall_ns(start_ns))

    def _end_queued(self, end_ns: int) -> None:
        if self._queued is not None:
            self._queued.end(wall_ns(end_ns))
            self._queued = None


def wall_ns(monotonic_ns: int) -> int:
    """Return the time of day of a moment that was read from the monotonic clock."""
    return monotonic_ns + time.time_ns() - time.monotonic_ns()


def _remote_context(parent: tuple[str, str] | None) -> Context:
    """Return a context that holds just the span of another process, or nothing."""
    from opentelemetry.context import Context
    from opentelemetry.trace import NonRecordingSpan, set_span_in_context

    if parent is None:
        return Context()
    return set_span_in_context(NonRecordingSpan(_span_context(*parent)), Context())


def _span_context(trace_id: str, span_id: str) -> SpanContext:
    from opentelemetry.trace import SpanContext, TraceFlags

    sampled = TraceFlags(TraceFlags.SAMPLED)
    return SpanContext(int(trace_id, 16), int(span_id, 16), is_remote=True, trace_flags=sampled)
