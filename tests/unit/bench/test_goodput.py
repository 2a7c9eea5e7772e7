"""Goodput: requests that went well and met every limit."""

from __future__ import annotations

import pytest

from tests.builders.bench_records import MS, S, make_failure, make_request, make_spec, make_stage
from tgi_cli.runtime.bench.measures import measure_stage
from tgi_cli.runtime.bench.result import Goodput


def goodput(found, **limits: float) -> Goodput:
    return measure_stage(make_stage(found), make_spec(), limits).goodput


def test_good_requests_meet_every_limit():
    found = [
        make_request(0, 1 * S),
        make_request(1, 2 * S, ttft=90 * MS),
        make_request(2, 3 * S, gaps=[60 * MS, 10 * MS]),
        make_request(3, 4 * S, ttft=90 * MS, gaps=[60 * MS]),
        make_failure(4, 5 * S),
    ]

    good = goodput(found, ttft=0.080, itl_max=0.050)

    assert good.fraction == pytest.approx(1 / 5)
    assert good.req_s == pytest.approx(1 / 60)
    assert good.tok_s == pytest.approx(4 / 60)
    assert good.failed_limit == {"ttft": 2, "itl_max": 2}


def test_limit_itself_is_good_enough():
    assert goodput([make_request(0, S, ttft=80 * MS)], ttft=0.080).fraction == 1


def test_single_token_meets_a_limit_on_the_time_per_token():
    assert goodput([make_request(0, S, gaps=())], tpot=1e-6).fraction == 1


def test_packed_tokens_are_judged_by_the_gap_per_token():
    packed = make_request(0, S, gaps=[80 * MS], tokens=[4, 4])

    assert goodput([packed], itl_max=0.021).fraction == 1
    assert goodput([packed], itl_max=0.019).fraction == 0


def test_hanging_up_on_purpose_is_neither_good_nor_bad():
    found = [make_request(0, S), make_request(1, 2 * S, failure="cancelled")]

    assert goodput(found, e2e=9.0).fraction == 1


def test_without_limits_there_is_no_goodput():
    assert goodput([make_request(0, S)]) == Goodput()
