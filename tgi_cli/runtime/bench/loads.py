"""The stages that options ask for, in their order. A sweep finds its own: `sweep.py`.

Spec: bench.md section 6.
"""

from __future__ import annotations

import math

from tgi_cli.errors import UsageError
from tgi_cli.runtime.bench.stages import StageSpec
from tgi_cli.runtime.config.bench.forms import Ramp
from tgi_cli.runtime.config.bench.options import (
    DEFAULT_CONCURRENCY,
    DEFAULT_CONCURRENCY_DURATION_S,
    DEFAULT_DURATION_S,
    BenchOptions,
)

DEFAULT_OFFLINE_REQUESTS = 256
MAX_STAGE_REQUESTS = 5_000_000  # all bodies are made, and held, before a stage
_INSTANT_WARMUP_REQUESTS = 8  # before an offline stage, whose load has no time


def stage_specs(options: BenchOptions) -> list[StageSpec]:
    """Return the stages of one run of the list; none for a sweep.

    Raises:
        UsageError: a stage whose plan would be too large to make beforehand.
    """
    specs = _specs(options)
    for spec in specs:
        rate = 0.0 if spec.is_closed_loop else max(spec.value, spec.ramp_to or 0.0)
        by_time = math.inf if spec.duration_s is None else rate * spec.duration_s
        by_number = math.inf if spec.num_requests is None else float(spec.num_requests)
        most = min(by_time, by_number)
        if math.isfinite(most) and most > MAX_STAGE_REQUESTS:
            raise UsageError(
                f"{spec.key}: {most:.0f} requests are more than {MAX_STAGE_REQUESTS} in a stage."
            )
    return specs


def _specs(options: BenchOptions) -> list[StageSpec]:
    if options.sweep:
        return []
    if options.burst:
        return [_burst(options, size) for size in options.burst]
    if options.offline:
        return [_offline(options)]
    if options.ramp:
        return [_ramp(options, ramp) for ramp in options.ramp]
    if options.trace is not None:
        return [_stage(options, "trace", kind="trace", keeps_tail_load=False)]
    if options.conversations is not None:
        return _conversations(options)
    if options.rate:
        return [rate_stage(options, rate) for rate in options.rate]
    users_by_stage = options.concurrency or DEFAULT_CONCURRENCY
    return [concurrency_stage(options, users) for users in users_by_stage]


def concurrency_stage(options: BenchOptions, users: int) -> StageSpec:
    """Return the closed loop of so many users."""
    return _stage(options, f"concurrency={users}", kind="concurrency", value=float(users))


def rate_stage(options: BenchOptions, rate: float) -> StageSpec:
    """Return the open loop of so many requests per second."""
    return _stage(options, f"rate={rate:.6g}", kind="rate", value=rate)


def _ramp(options: BenchOptions, ramp: Ramp) -> StageSpec:
    return _stage(
        options,
        f"ramp={ramp}",
        kind="ramp",
        value=ramp.start,
        ramp_to=ramp.stop,
        ramp_kind=options.ramp_kind,
        duration_s=ramp.duration_s,
    )


def _burst(options: BenchOptions, size: int) -> StageSpec:
    return _stage(
        options,
        f"burst={size}",
        kind="burst",
        value=float(size),
        num_repeats=options.repeat,
        num_requests=min(size * options.repeat, options.requests or size * options.repeat),
        duration_s=options.duration,
        keeps_tail_load=False,
        **_instant_warmup(options, size),
    )


def _offline(options: BenchOptions) -> StageSpec:
    num_requests = options.requests or DEFAULT_OFFLINE_REQUESTS
    return _stage(
        options,
        "offline",
        kind="offline",
        num_requests=num_requests,
        duration_s=options.duration,
        keeps_tail_load=False,
        **_instant_warmup(options, min(num_requests, _INSTANT_WARMUP_REQUESTS)),
    )


def _instant_warmup(options: BenchOptions, num_requests: int) -> dict[str, object]:
    """Return a warm-up in requests: a load of one instant can't fill a time."""
    if options.warmup.is_zero:
        return {}
    return {"warmup_s": 0.0, "warmup_requests": options.warmup.requests or num_requests}


def _conversations(options: BenchOptions) -> list[StageSpec]:
    starts_by = "rate" if options.rate else "concurrency"
    return [
        _stage(
            options,
            f"conversations,{starts_by}={value:.6g}",
            kind="conversations",
            value=float(value),
            starts_by=starts_by,
        )
        for value in options.rate or options.concurrency or (1,)
    ]


def _stage(options: BenchOptions, key: str, **fields: object) -> StageSpec:
    values: dict[str, object] = {
        "arrival": options.arrival,
        "burstiness": options.burstiness or 1.0,
        "think_time_s": options.think_time,
        "stagger_s": options.stagger,
        "max_concurrency": options.max_concurrency,
        "num_requests": options.requests,
        "duration_s": _duration_s(options),
        "warmup_s": options.warmup.other or 0.0,
        "warmup_requests": options.warmup.requests or None,
        "drain_s": options.drain,
        "keeps_tail_load": options.tail_load,
    }
    return StageSpec(key=key, **(values | fields))  # type: ignore[arg-type]


def _duration_s(options: BenchOptions) -> float | None:
    if options.duration is not None or options.requests is not None:
        return options.duration
    if options.trace is not None:
        return None  # all of it
    if options.sweep or options.concurrency or options.rate or options.conversations:
        return DEFAULT_DURATION_S
    return DEFAULT_CONCURRENCY_DURATION_S
