"""The steady part of a stage: found where it is, refused where it is too short."""

from __future__ import annotations

import pytest

from tests.builders.bench_records import (
    MS,
    S,
    closed_loop_requests,
    make_request,
    make_spec,
    make_stage,
    poisson_requests,
)
from tgi_cli.runtime.bench.measures import measure_stage


def test_closed_loop_is_steady_while_all_its_users_are_served():
    # Four users, whose starts are spread over nine seconds.
    found = [
        make_request(user * 1000 + k, user * 3 * S + k * 500 * MS, ttft=499 * MS, gaps=())
        for user in range(4)
        for k in range(120 - 6 * user)
    ]
    record = make_stage(found, is_closed_loop=True)

    steady = measure_stage(record, make_spec("concurrency", 4)).phases.steady

    assert steady.found
    assert steady.w0 == pytest.approx(9.0, abs=0.6)
    assert steady.w1 == pytest.approx(60.0, abs=0.6)


def test_moments_between_two_requests_of_one_user_end_no_span():
    found = closed_loop_requests(5, users=1)
    record = make_stage(found, is_closed_loop=True)

    stage = measure_stage(record, make_spec("concurrency", 1))

    assert stage.phases.steady.found
    assert stage.phases.steady.w1 - stage.phases.steady.w0 > 58
    assert stage.throughput.steady.out_tok_s == pytest.approx(
        stage.throughput.all.out_tok_s, rel=0.02
    )


def test_closed_loop_that_is_full_for_less_than_half_of_the_window_is_not_steady():
    found = [make_request(k, k * 100 * MS, ttft=99 * MS, gaps=()) for k in range(280)]
    record = make_stage(found, is_closed_loop=True)

    stage = measure_stage(record, make_spec("concurrency", 1))

    assert not stage.phases.steady.found
    assert stage.latency.ttft.steady.n == 0
    assert stage.throughput.steady.out_tok_s is None


def test_open_loop_leaves_its_cold_start_out():
    found = poisson_requests(9)
    for k, request in enumerate(found[:40]):
        shift = (40 - k) * 20 * MS
        slow = make_request(k, request.sched, ttft=request.first - request.sched + shift)
        found[k] = slow
    record = make_stage(found)

    stage = measure_stage(record, make_spec())

    steady = stage.phases.steady
    assert steady.found
    assert found[25].sched <= steady.w0 * 1e9 <= found[60].sched
    assert stage.latency.ttft.steady.n < stage.latency.ttft.all.n
    assert stage.latency.ttft.steady.max < stage.latency.ttft.all.max


def test_fewer_than_thirty_requests_are_no_steady_state():
    record = make_stage([make_request(k, k * 2 * S) for k in range(29)])

    stage = measure_stage(record, make_spec())

    assert not stage.phases.steady.found


def test_failures_in_the_steady_part_are_infinite_there_too():
    found = poisson_requests(2)
    found[-9].failure = "reset"
    record = make_stage(found)

    stage = measure_stage(record, make_spec())

    assert stage.phases.steady.found
    assert stage.latency.ttft.steady.max == "inf"
