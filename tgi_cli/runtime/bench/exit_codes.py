"""The exit code of a run, and the one line that says why. Spec: bench.md section 14."""

from __future__ import annotations

from collections.abc import Sequence

from tgi_cli.runtime.bench.records import StageRecord
from tgi_cli.runtime.bench.result import SloOutcome, Stage
from tgi_cli.runtime.config.bench.forms import MaxErrors

OK, INTERNAL, USAGE, SLO, ERRORS, UNTRUSTED, UNREACHABLE, INTERRUPTED = 0, 1, 2, 3, 4, 5, 6, 130


def exit_code(
    stages: Sequence[Stage],
    stops: Sequence[StageRecord],
    slos: Sequence[SloOutcome],
    *,
    max_errors: MaxErrors | None = None,
    is_interrupted: bool = False,
    requires_output_length: bool = False,
    is_client_limited: bool = False,
) -> tuple[int, str | None]:
    """Return the code and its reason; of several, the first of 130, 6, 5, 4 and 3.

    A stage that ended as planned is held against `max_errors` too: it may have been too short to
    be stopped, or its requests failed in the drain.
    """
    if is_interrupted:
        return INTERRUPTED, "interrupted"
    if reason := _unreachable(stages, stops):
        return UNREACHABLE, reason
    if reason := _untrusted(stages, requires_output_length):
        return UNTRUSTED, reason
    if is_client_limited:
        return UNTRUSTED, "the sweep ended where the client was the limit"
    stopped = [stop.key for stop in stops if stop.stopped_by == "errors"]
    over_budget = [stage.key for stage in stages if max_errors and _exceeds(stage, max_errors)]
    if bad := [*stopped, *over_budget]:
        return ERRORS, f"{bad[0]}: more failures than --max-errors allows"
    failed = [slo for slo in slos if not slo.passed]
    if failed:
        more = f", and {len(failed) - 1} more" if len(failed) > 1 else ""
        why = f": {failed[0].why}" if failed[0].why else ""
        return SLO, f"SLO {failed[0].expr} failed in {failed[0].stage}{why}{more}"
    return OK, None


def _unreachable(stages: Sequence[Stage], stops: Sequence[StageRecord]) -> str | None:
    for stop in stops:
        if stop.stopped_by == "unreachable":
            return f"{stop.key}: the first 20 requests all failed"
    if stages and all(stage.counts.ok == 0 and stage.counts.failed for stage in stages):
        return "every request failed"
    return None


def _untrusted(stages: Sequence[Stage], requires_output_length: bool) -> str | None:
    for stage in stages:
        if stage.verdict == "invalid":
            return f"{stage.key}: not trustworthy: {'; '.join(stage.verdict_reasons)}"
        if requires_output_length and stage.tokens.short_output_fraction:
            share = stage.tokens.short_output_fraction
            return f"{stage.key}: {share:.1%} of the outputs are shorter than planned"
    return None


def _exceeds(stage: Stage, most: MaxErrors) -> bool:
    counts = stage.counts
    num_bad = counts.failed + counts.unfinished + counts.dropped
    if most.requests is not None:
        return num_bad > most.requests
    return most.other is not None and num_bad > most.other * counts.planned
