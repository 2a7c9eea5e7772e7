"""What the options mean for transport, bodies, time-outs and stop rules. Spec: bench.md 14."""

from __future__ import annotations

import math

from tgi_cli.runtime.bench.conversations import ConversationSource
from tgi_cli.runtime.bench.facts import num_cores
from tgi_cli.runtime.bench.inputs import InputSource
from tgi_cli.runtime.bench.live import LiveState
from tgi_cli.runtime.bench.messages import Timeouts
from tgi_cli.runtime.bench.protocols import BodyOptions
from tgi_cli.runtime.bench.stages import StageSpec
from tgi_cli.runtime.bench.statistics import relative_half_width
from tgi_cli.runtime.bench.streams import Streams
from tgi_cli.runtime.bench.transport import TransportOptions
from tgi_cli.runtime.bench.window import StopRules
from tgi_cli.runtime.config.bench import BenchOptions
from tgi_cli.runtime.config.bench.options import DEFAULT_OUTPUT_TOKENS

# What one worker must manage (section 11), where nobody has calibrated this machine.
EVENTS_S = 10_000.0
REQUESTS_S = 1_000.0
_NUM_SAMPLED = 32  # inputs, of which the mean length of outputs is taken


def transport_options(options: BenchOptions) -> TransportOptions:
    """Return how the endpoint is reached; the URL is its base."""
    headers = dict(options.header)
    if options.api_key is not None:
        headers = {"Authorization": f"Bearer {options.api_key}"} | headers
    return TransportOptions(
        url=options.url.rstrip("/"),
        headers=headers,
        connect_timeout_s=options.connect_timeout,
        keeps_alive=options.keepalive,
        pool_size=options.http1_pool or 0,
        cacert=options.cacert,
        verifies_tls=not options.insecure,
    )


def body_options(options: BenchOptions) -> BodyOptions:
    """Return what bodies say before the probe has found what the server takes."""
    return BodyOptions(
        model=options.model,
        streams=options.stream,
        temperature=options.temperature,
        top_p=options.top_p,
        fields=options.body or {},
    )


def timeouts(options: BenchOptions) -> Timeouts:
    return Timeouts(
        first_token_s=options.first_token_timeout,
        idle_s=options.idle_timeout,
        total_s=options.timeout,
    )


def stop_rules(options: BenchOptions) -> StopRules:
    """Return when a stage is given up (`--max-errors`) or is precise enough (`--until-ci`)."""
    # Nothing live tells tpot, which is the mean of the gaps but for the weights of requests.
    metric = "itl" if options.ci_metric == "tpot" else options.ci_metric
    wanted = options.until_ci

    def is_precise(state: LiveState) -> bool:
        width = relative_half_width(state.series[metric])
        return wanted is not None and width is not None and width <= wanted

    return StopRules(
        max_errors=options.max_errors.requests,
        max_error_share=options.max_errors.other,
        is_precise=None if wanted is None else is_precise,
    )


def num_workers(
    options: BenchOptions,
    specs: list[StageSpec],
    source: InputSource | ConversationSource,
    itl_s: float | None,
    calibration: dict[str, float] | None,
) -> int:
    """Return how many processes send: those asked for, else so many that each is half busy.

    `itl_s` is what the probe saw: users of a closed loop get tokens at that pace at most. Texts may
    be made and counted, so not for an event loop.
    """
    if options.workers is not None:
        return options.workers
    events_s, requests_s = 0.0, 0.0
    for spec in specs:
        load = max(spec.value, spec.ramp_to or 0.0)
        if spec.is_closed_loop:
            events_s = max(events_s, load / itl_s if itl_s else 0.0)
        else:
            requests_s = max(requests_s, load)
    if requests_s:
        events_s = max(events_s, requests_s * _mean_output_tokens(source))
    known = calibration or {}
    needed = max(
        events_s / (known.get("events_s", EVENTS_S) / 2),
        requests_s / (known.get("requests_s", REQUESTS_S) / 2),
    )
    # One core is left to the bench itself, and to a server on the same machine.
    return max(1, min(math.ceil(needed), num_cores() - 1))


def _mean_output_tokens(source: InputSource | ConversationSource) -> float:
    """Return how many tokens the answers have on average, by the first inputs of a plan."""
    streams = Streams(0, "lengths", "warmup")
    if isinstance(source, ConversationSource):
        talks = source.conversations(streams, 0, _NUM_SAMPLED)
        lengths = [turn.output_tokens for talk in talks for turn in talk]
    else:
        lengths = [each.output_tokens for each in source.inputs(streams, 0, _NUM_SAMPLED)]
    known = [length for length in lengths if length is not None]
    return sum(known) / len(known) if known else DEFAULT_OUTPUT_TOKENS.value
