"""What must be known beside a stage's numbers, in a line each. Spec: bench.md sections 3 to 8."""

from __future__ import annotations

import math
from collections.abc import Iterator

from tgi_cli.runtime.bench.report import words
from tgi_cli.runtime.bench.result import Stage
from tgi_cli.runtime.bench.statistics import real

_MAX_MISMATCH = 0.02
_MAX_TPOT_DIFFERENCE = 0.01


def remarks(stage: Stage) -> Iterator[str]:
    """Yield what can be said of how this stage was loaded and counted."""
    if stage.load.kind == "offline":
        yield "all requests at once: latencies are not meaningful"
    if not stage.phases.warmup_s:
        yield "no warm-up"
    tokens = stage.tokens
    if (tokens.mismatch_mean or 0.0) > _MAX_MISMATCH:
        apart = words.percent(tokens.mismatch_mean)
        yield f"the server's counts of output tokens and the tokenizer's are {apart} % apart"
    if len(tokens.source) > 1:
        ways = ", ".join(f"{name} {count}" for name, count in tokens.source.items())
        yield f"output tokens were counted in several ways: {ways}"
    if "events" in tokens.source:
        yield "output tokens are counted by events: approximate"
    if tokens.short_output_fraction:
        share = words.percent(tokens.short_output_fraction)
        yield f"{share} % of the outputs are shorter than planned"
    yield from _tpot(stage)


def _tpot(stage: Stage) -> Iterator[str]:
    """Say both forms where they differ: most programs count all tokens but the first."""
    ours, others = (real(each.ok.p50) for each in (stage.latency.tpot, stage.latency.tpot_n1))
    if not ours or others is None or not math.isfinite(ours + others):
        return
    if abs(others / ours - 1) > _MAX_TPOT_DIFFERENCE:
        yield (
            f"tpot p50 {words.milliseconds(ours)} ms; over all tokens but the first, as most "
            f"programs have it, {words.milliseconds(others)} ms"
        )
