"""Which exit code a run has when several reasons apply."""

from __future__ import annotations

from typing import Any

import pytest

from tests.builders.bench_records import make_failure, make_request, make_stage
from tgi_cli.runtime.bench.exit_codes import exit_code
from tgi_cli.runtime.bench.measures import measure_stage
from tgi_cli.runtime.bench.result import SloOutcome
from tgi_cli.runtime.bench.stages import StageSpec
from tgi_cli.runtime.config.bench.forms import MaxErrors

FAILED = SloOutcome(expr="ttft.p99<1s", stage="rate=2", value=2.0, passed=False)


def code_of(*, slos: list[SloOutcome] | None = None, verdict: str = "valid", **fields: Any) -> int:
    options = {
        name: fields.pop(name)
        for name in ("is_interrupted", "is_client_limited", "max_errors")
        if name in fields
    }
    requests = fields.pop("requests", [make_request()])
    record = make_stage(requests, **fields)
    stage = measure_stage(record, StageSpec(key="rate=2", kind="rate", value=2.0))
    stage.verdict = verdict  # type: ignore[assignment]
    return exit_code([stage], [record], slos or [], **options)[0]


@pytest.mark.parametrize(
    ("expected", "fields"),
    [
        (0, {}),
        (3, {"slos": [FAILED]}),
        (4, {"slos": [FAILED], "stopped_by": "errors"}),
        (5, {"stopped_by": "errors", "verdict": "invalid"}),
        (5, {"is_client_limited": True, "slos": [FAILED]}),
        (6, {"stopped_by": "unreachable", "verdict": "invalid"}),
        (6, {"requests": [make_failure()], "stopped_by": "errors"}),
        (130, {"stopped_by": "unreachable", "is_interrupted": True}),
    ],
)
def test_the_worst_reason_wins(expected: int, fields: dict[str, Any]) -> None:
    assert code_of(**fields) == expected


@pytest.mark.parametrize(
    ("limit", "expected"),
    [(MaxErrors(other=0.1), 4), (MaxErrors(other=0.3), 0), (MaxErrors(1), 4), (MaxErrors(2), 0)],
)
def test_a_stage_too_short_to_be_stopped_is_held_against_the_budget(
    limit: MaxErrors, expected: int
) -> None:
    requests = [make_request(k, k) for k in range(5)]
    requests += [make_failure(5, 5), make_failure(6, 6, "unfinished", after=None)]

    assert code_of(requests=requests, max_errors=limit) == expected
