"""SLO expressions: read with clear errors, judged on all requests."""

from __future__ import annotations

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.builders.bench_records import (
    MS,
    S,
    make_failure,
    make_request,
    make_sample,
    make_spec,
    make_stage,
)
from tgi_cli.runtime.bench.measures import measure_stage
from tgi_cli.runtime.bench.result import Stage
from tgi_cli.runtime.bench.slo import judge_slos, parse_slo


def measured(num_ok: int = 400, num_failed: int = 0, rate: float = 4, **fields: object) -> Stage:
    found = [make_request(k, k * S // 10, ttft=(40 + k % 100) * MS) for k in range(num_ok)]
    found += [make_failure(num_ok + k, k * S // 10) for k in range(num_failed)]
    record = make_stage(found, key=f"rate={rate:g}", **fields)
    return measure_stage(record, make_spec("rate", rate), {"ttft": 0.1})


def judge(text: str, *stages: Stage, strict: bool = False) -> list[bool]:
    return [outcome.passed for outcome in judge_slos([parse_slo(text)], stages, strict=strict)]


@pytest.mark.parametrize(
    ("text", "name", "limit", "load"),
    [
        ("ttft.p99<500ms", "ttft.p99", 0.5, None),
        ("ttft.p99.9 <= 1.5s", "ttft.p99.9", 1.5, None),
        ("e2e_service.mean<2m", "e2e_service.mean", 120, None),
        ("itl.max<80us", "itl.max", 80e-6, None),
        ("out_tok_s>=1000", "out_tok_s", 1000, None),
        ("error_rate<0.1%", "error_rate", 0.001, None),
        ("error_rate<0.001", "error_rate", 0.001, None),
        ("goodput>=95%", "goodput", 0.95, None),
        ("ttft.p50<1s@c=8", "ttft.p50", 1, ("concurrency", 8)),
        ("req_s>3.5 @rate=4", "req_s", 3.5, ("rate", 4)),
    ],
)
def test_expressions_are_read(text, name, limit, load):
    slo = parse_slo(text)

    assert (slo.name, slo.limit, slo.load) == (name, pytest.approx(limit), load)
    assert slo.expr == text


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "is not an SLO"),
        ("ttft.p99", "is not an SLO"),
        ("ttft.p99=500ms", "is not an SLO"),
        ("ttft.p99<500ms and more", "is not an SLO"),
        ("ttft<500ms", "say which ttft"),
        ("ttft.p42<500ms", "say which ttft"),
        ("ttft.p99<500", "a time needs its unit"),
        ("ttft.p99<500%", "a time needs its unit"),
        ("latency.p99<1s", "latency is not one of"),
        ("out_tok_s.p99>3", "one number"),
        ("out_tok_s>3ms", "has no unit ms"),
        ("error_rate<3s", "is a share"),
        ("goodput>=95", "at most 100%"),
        ("ttft.p99<1.2.3s", "is not a number"),
        ("ttft.p99<1s@x=3", "a stage is named"),
        ("ttft.p99<1s@c=.", "is not a number"),
    ],
)
def test_what_cannot_be_read_is_refused_with_a_reason(text, why):
    with pytest.raises(ValueError, match=why):
        parse_slo(text)


def test_goodput_without_limits_is_refused():
    with pytest.raises(ValueError, match="needs limits"):
        parse_slo("goodput>=95%", has_goodput=False)


@given(st.text(max_size=30) | st.from_regex(r"[a-z_.0-9]+[<>=]+[0-9.]+[a-z%]*(@[a-z]=[0-9.]+)?"))
def test_any_text_is_read_or_refused(text):
    with suppress(ValueError):
        assert parse_slo(text).limit >= 0


def test_every_name_can_be_judged():
    stage = measured()

    for name in ("ttft.p50", "ttft_service.p99.9", "lag.max", "connect.mean", "server_queue.p50"):
        assert len(judge(f"{name}<1h", stage)) == 1
    for name in ("req_s", "in_tok_s", "peak_out_tok_s", "good_tok_s", "concurrency"):
        assert judge(f"{name}>=0", stage) == [True]


def test_slo_must_hold_in_every_stage_or_in_the_one_that_it_names():
    slow, fast = measured(rate=8), measured(rate=4)
    slow.latency.ttft.all.p50 = 0.7

    assert judge("ttft.p50<500ms", fast, slow) == [True, False]
    assert judge("ttft.p50<500ms@rate=4", fast, slow) == [True]
    assert judge("ttft.p50<500ms@rate=8", fast, slow) == [False]


def test_stage_that_was_not_run_meets_nothing():
    (outcome,) = judge_slos([parse_slo("ttft.p50<500ms@c=8")], [measured()])

    assert not outcome.passed
    assert outcome.value is None
    assert outcome.stage == "concurrency=8"
    assert judge("ttft.p50<1s") == [False]


def test_failures_count_against_it():
    assert judge("ttft.p90<1s", measured(num_failed=0)) == [True]
    assert judge("ttft.p90<1s", measured(num_failed=60)) == [False]
    assert judge("error_rate<10%", measured(num_ok=390, num_failed=10)) == [True]
    assert judge("error_rate<2%", measured(num_ok=390, num_failed=10)) == [False]
    assert judge("goodput>=60%", measured()) == [True]
    assert judge("goodput>=62%", measured()) == [False]


def test_percentile_of_too_few_requests_is_unproven_and_fails_when_strict():
    few, many = measured(num_ok=367), measured(num_ok=368)

    (outcome,) = judge_slos([parse_slo("ttft.p99<500ms")], [few])

    assert outcome.passed
    assert not outcome.proven
    assert outcome.why == "n 367 < 368"
    assert judge("ttft.p99<500ms", few, strict=True) == [False]
    assert judge("ttft.p99<500ms", many, strict=True) == [True]
    assert judge("ttft.mean<500ms", few, strict=True) == [True]


def test_invalid_stage_meets_nothing():
    stage = measured(samples=[make_sample(at=S, cpu_share=0.99)])

    (outcome,) = judge_slos([parse_slo("ttft.p50<500ms")], [stage])

    assert stage.verdict == "invalid"
    assert not outcome.passed
    assert outcome.why == "the stage is invalid"


def test_what_failed_for_another_reason_than_its_value_says_it():
    slos = [parse_slo("out_tok_s>=10@c=8"), parse_slo("server_queue.p50<1s")]

    absent, untold = judge_slos(slos, [measured()])

    assert (absent.passed, absent.why) == (False, "no such stage was run")
    assert (untold.passed, untold.why) == (False, "nothing tells it")


def test_limit_itself_is_met_only_where_the_sign_says_so():
    stage = measured()
    stage.throughput.all.out_tok_s = 1000.0

    assert judge("out_tok_s>=1000", stage) == [True]
    assert judge("out_tok_s>1000", stage) == [False]


def test_each_repeat_is_judged_by_itself():
    outcomes = judge_slos([parse_slo("ttft.p50<1s")], [measured(), measured(repeat=1)])

    assert [outcome.stage for outcome in outcomes] == ["rate=4 run 1", "rate=4 run 2"]
