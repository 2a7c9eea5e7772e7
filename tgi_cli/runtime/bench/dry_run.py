"""`--dry-run`: what would be sent, when, and how long it takes. Nothing is sent."""

from __future__ import annotations

from collections.abc import Iterator

from tgi_cli.runtime.bench.inputs import Input
from tgi_cli.runtime.bench.loads import stage_specs
from tgi_cli.runtime.bench.plan import StagePlanner
from tgi_cli.runtime.bench.sources import open_source
from tgi_cli.runtime.bench.stages import PromptInput, StageSpec
from tgi_cli.runtime.bench.streams import Streams
from tgi_cli.runtime.config.bench import BenchOptions

_NUM_SHOWN = 8


def describe_plan(options: BenchOptions) -> str:
    """Return the stages, the first send times of each and the time that all of it takes."""
    return "\n".join(_lines(options)) + "\n"


def _lines(options: BenchOptions) -> Iterator[str]:
    specs = stage_specs(options)
    yield f"endpoint  {options.url}  {options.protocol}"
    yield f"seed      {'drawn, and stored' if options.seed is None else options.seed}"
    if options.sweep:
        yield "sweep     1, 2, 4, … users until they bring no more, then 25 to 100 % of that rate"
        return
    total_s = 0.0
    is_open_ended = False
    for spec in specs:
        length = _length(spec)
        times = _first_times(options, spec)
        yield f"stage     {spec.key}: {_warmup(spec)}, {length}, drain up to {spec.drain_s:g}s"
        if times:
            shown = " ".join(f"{time:.3f}" for time in times)
            yield f"          sent at {shown} … s" + (
                "" if options.seed is not None else " (with another seed, at others)"
            )
        total_s += spec.warmup_s + (spec.duration_s or 0.0)
        is_open_ended |= spec.duration_s is None or bool(spec.warmup_requests)
    num_stages = len(specs) * options.num_runs
    total_s = total_s * options.num_runs + options.cooldown * max(num_stages - 1, 0)
    runs = f", {options.num_runs} runs of each" if options.num_runs > 1 else ""
    more = " and the time for the requests" if is_open_ended else ""
    yield f"time      {total_s:g}s{more}{runs}, drains not counted"


def _warmup(spec: StageSpec) -> str:
    if spec.warmup_requests:
        return f"warm-up {spec.warmup_requests} requests"
    return f"warm-up {spec.warmup_s:g}s" if spec.warmup_s else "no warm-up"


def _length(spec: StageSpec) -> str:
    parts = []
    if spec.num_requests is not None:
        parts.append(f"{spec.num_requests} requests")
    if spec.duration_s is not None:
        parts.append(f"{spec.duration_s:g}s")
    return " or ".join(parts) or "all of the file"


class _NoSource:
    """In place of inputs, where only times are wanted."""

    def inputs(self, _streams: Streams, _start: int, _count: int) -> list[Input]:
        return []

    def primers(self, _streams: Streams) -> list[Input]:
        return []


def _no_body(_prompt: PromptInput, _output_tokens: int | None) -> bytes:
    return b""


def _first_times(options: BenchOptions, spec: StageSpec) -> list[float]:
    """Return when the first requests leave; none of a closed loop, which goes by the answers."""
    if spec.is_closed_loop:
        return []
    source = open_source(options, None) if spec.kind == "trace" else _NoSource()
    planner = StagePlanner(spec, source, _no_body, seed=options.seed or 0, nonce=None)
    times = planner.times("measure")
    return [] if times is None else [float(time) for time in times[:_NUM_SHOWN]]
