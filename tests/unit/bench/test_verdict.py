"""Verdicts: the client says when its own numbers aren't to be trusted."""

from __future__ import annotations

from random import Random

import pytest

from tests.builders.bench_records import (
    MS,
    S,
    closed_loop_requests,
    make_failure,
    make_request,
    make_sample,
    make_spec,
    make_stage,
    poisson_requests,
)
from tgi_cli.runtime.bench.measures import measure_stage
from tgi_cli.runtime.bench.result import Stage


def measure(found, kind="rate", **fields: object) -> Stage:
    return measure_stage(make_stage(found, **fields), make_spec(kind))


@pytest.mark.parametrize(
    ("sample", "verdict", "reason"),
    [
        ({"cpu_share": 0.7}, "valid", None),
        ({"cpu_share": 0.75}, "warn", "worker CPU 75 % > 70 %"),
        ({"cpu_share": 0.95}, "invalid", "worker CPU 95 % > 90 %"),
        ({"loop_lags": [3 * MS] * 9}, "warn", "loop lag p99 3 ms > 2 ms"),
        ({"loop_lags": [11 * MS] * 9}, "invalid", "loop lag p99 11 ms > 10 ms"),
    ],
)
def test_busy_or_late_worker_is_told(sample, verdict, reason):
    stage = measure(poisson_requests(1), samples=[make_sample(at=9 * S, **sample)])

    assert stage.verdict == verdict
    assert stage.verdict_reasons == ([reason] if reason else [])


def test_one_busy_worker_of_four_is_enough():
    samples = [
        make_sample(at=k * S, worker=k % 4, cpu_share=0.97 if k % 4 == 2 else 0.1)
        for k in range(1, 41)
    ]

    stage = measure(poisson_requests(1), samples=samples)

    assert stage.verdict == "invalid"


@pytest.mark.parametrize(
    ("lag", "ttft", "verdict"),
    [
        (900_000, 20 * MS, "valid"),  # 4.5 % of the ttft, but below a millisecond
        (2 * MS, 400 * MS, "valid"),  # over a millisecond, but 0.5 %
        (2 * MS, 40 * MS, "warn"),
        (4 * MS, 20 * MS, "warn"),  # 20 %, but below 5 ms
        (6 * MS, 50 * MS, "invalid"),
    ],
)
def test_lag_is_judged_against_the_latency_that_it_is_part_of(lag, ttft, verdict):
    found = [make_request(k, k * S // 4, ttft=ttft, lag=lag) for k in range(240)]

    assert measure(found).verdict == verdict


def test_requests_that_were_never_taken_up_are_the_clients_fault_unless_it_was_capped():
    found = [make_request(k, k * S // 4) for k in range(240)]
    found[-3:] = [
        make_failure(k, k * S // 4, "dropped", after=None, wake=None, gate=None, sent=None)
        for k in range(237, 240)
    ]

    stage = measure(found)

    assert stage.verdict == "invalid"
    assert stage.verdict_reasons == ["237 of 240 planned requests were sent"]
    assert measure(found, has_cap=True).verdict == "valid"
    assert measure(found, stopped_by="interrupt").verdict == "valid"


def test_refused_connections_are_the_servers_fault():
    found = [make_failure(k, k * S // 4, "refused", conn=None, sent=None) for k in range(240)]

    assert measure(found).verdict == "valid"


def test_clock_that_jumped_is_told():
    assert measure(poisson_requests(1), clock_jumped=True).verdict_reasons == ["the clock jumped"]


def test_closed_loop_that_breaks_littles_law_is_broken():
    found = closed_loop_requests(4)
    for request in found[::2]:  # half of the answers' ends were never seen
        request.end = None
        request.failure = "reset"

    stage = measure(found, "concurrency", is_closed_loop=True)

    assert stage.concurrency.little_residual > 0.1
    assert stage.verdict == "invalid"
    assert "concurrency isn't rate times latency" in stage.verdict_reasons[-1]


@pytest.mark.parametrize(
    "found",
    [
        [make_failure(k, 0, "unfinished", after=None) for k in range(2)],
        [make_request(k, 0, ttft=70 * S) for k in range(2)],
    ],
    ids=["never ended", "ended after the window"],
)
def test_users_who_wait_for_one_answer_all_along_are_the_servers_doing(found):

    stage = measure(found, "concurrency", is_closed_loop=True, drained=90 * S)

    assert stage.concurrency.little_residual == 1.0  # nobody has left
    assert stage.verdict == "valid"


def queued(rate: float, capacity: float, *, start: int = 0) -> list:
    """A server that answers one after another, each in 1 / capacity seconds, in a Poisson load."""
    random, found, at, free = Random(3), [], 0.0, 0.0
    while (at := at + random.expovariate(rate)) < 60:
        free = max(free, at) + random.gammavariate(4, 0.25 / capacity)
        ttft = int((free - at) * S)
        found.append(make_request(len(found), start + int(at * S), ttft=ttft, gaps=()))
    return found


def test_server_below_its_capacity_is_stable():
    stage = measure(queued(rate=8, capacity=12))

    assert stage.is_stable
    assert stage.verdict_reasons == []


def test_server_above_its_capacity_is_unstable_by_what_it_left_undone():
    stage = measure(queued(rate=12, capacity=10))

    assert stage.is_stable is False
    assert "offered in the second half" in stage.verdict_reasons[0]
    assert stage.verdict == "valid"  # the numbers are sound: it is the server that can't


def test_queue_that_grows_slowly_is_unstable_by_its_slopes():
    """Nearly all that was offered gets done, yet each request waits longer than the one before."""
    found = [
        make_request(k, k * 50 * MS, ttft=50 * MS + k * 1700_000, gaps=()) for k in range(1200)
    ]

    stage = measure(found)

    assert stage.counts.planned * 0.95 < stage.throughput.all.req_s * 60
    assert stage.is_stable is False
    assert "still rise after 30 s" in stage.verdict_reasons[0]


def test_server_that_was_empty_when_the_window_began_is_no_sign_of_overload():
    """An answer takes 3 s of the window's 10: a third of what was asked is done after it."""
    found = [make_request(k, k * S // 4, ttft=3 * S, gaps=()) for k in range(40)]

    stage = measure(found, w1=10 * S)

    assert stage.throughput.all.req_s < 0.75 * stage.throughput.offered_req_s
    assert stage.is_stable


def test_few_long_answers_that_the_window_cuts_are_no_sign_of_overload():
    """Four of 40 requests, a tenth, are still at work when the window ends: as at its beginning."""
    found = [make_request(k, k * S // 4 - 2 * S, ttft=900 * MS, gaps=()) for k in range(49)]
    found[44:] = [make_request(k, k * S // 4 - 2 * S, ttft=3 * S, gaps=()) for k in range(44, 49)]

    stage = measure(found, w1=10 * S)

    assert stage.is_stable


def test_refusing_every_other_request_is_not_keeping_up():
    found = [
        make_failure(k, k * S // 8) if k % 2 else make_request(k, k * S // 8) for k in range(480)
    ]

    assert measure(found).is_stable is False


def test_stability_is_asked_of_open_loops_of_one_rate_only():
    stage = measure(closed_loop_requests(1), "concurrency", is_closed_loop=True)

    assert stage.is_stable is None
