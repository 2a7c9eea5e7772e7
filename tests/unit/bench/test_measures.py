"""A stage's numbers, held against the definitions written down as naively as they can be."""

from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

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
from tgi_cli.runtime.bench.measures import measure_stage, metric_values
from tgi_cli.runtime.bench.records import RequestRecord

WINDOW = (2 * S, 9 * S + 300 * MS)


@st.composite
def requests(draw: st.DrawFn) -> list[RequestRecord]:
    """Requests around a window: before it, in it, over its end, of every fate."""
    found: list[RequestRecord] = []
    for index in range(draw(st.integers(0, 12))):
        sched = draw(st.integers(0, 11 * S))
        fate = draw(st.sampled_from(("ok", "ok", "ok", "http_429", "truncated", "unfinished")))
        if fate == "http_429":
            found.append(make_failure(index, sched, after=draw(st.integers(0, 9 * MS))))
            continue
        gaps = draw(st.lists(st.integers(0, 900 * MS), max_size=5))
        tokens = draw(st.lists(st.integers(1, 4), min_size=len(gaps) + 1, max_size=len(gaps) + 1))
        request = make_request(
            index,
            sched,
            ttft=draw(st.integers(0, 2 * S)),
            gaps=gaps,
            tokens=tokens,
            lag=draw(st.integers(0, 3 * MS)),
        )
        if fate != "ok":
            request.failure = fate
            request.planned_output_tokens = sum(tokens) + draw(st.integers(0, 9))
            request.end = None if fate == "unfinished" else request.end
        found.append(request)
    return found


def inside(found: list[RequestRecord]) -> list[RequestRecord]:
    return [one for one in found if WINDOW[0] <= one.sched < WINDOW[1]]


def measure(found: list[RequestRecord], **fields: object):
    record = make_stage(found, w0=WINDOW[0], w1=WINDOW[1], drained=16 * S, **fields)
    return measure_stage(record, make_spec())


def near(values: list[float]):
    return pytest.approx(sorted(values), abs=1e-9)


@given(requests())
def test_latencies_are_as_defined(found):
    well = [one for one in inside(found) if one.is_ok]

    values = metric_values(well)

    assert sorted(values["ttft"]) == near([(one.first - one.sched) / 1e9 for one in well])
    assert sorted(values["e2e"]) == near([(one.end - one.sched) / 1e9 for one in well])
    itl, icl, tpot, tpot_n1, stall = [], [], [], [], []
    for one in well:
        d, n, total = one.deliveries, one.tokens, sum(one.tokens)
        for k in range(1, len(d)):
            icl.append((d[k] - d[k - 1]) / 1e9)
            itl += [(d[k] - d[k - 1]) / n[k] / 1e9] * n[k]
        if total > n[0]:
            tpot.append((one.last - one.first) / (total - n[0]) / 1e9)
            tpot_n1.append((one.last - one.first) / (total - 1) / 1e9)
            stall.append(max(d[k] - d[k - 1] for k in range(1, len(d))) / 1e9)
    assert sorted(values["itl"]) == near(itl)
    assert sorted(values["icl"]) == near(icl)
    assert sorted(values["tpot"]) == near(tpot)
    assert sorted(values["tpot_n1"]) == near(tpot_n1)
    assert sorted(values["stall"]) == near(stall)


@given(requests())
def test_rates_count_what_came_in_the_window_whoever_asked(found):
    w0, w1 = WINDOW

    stage = measure(found)

    width = (w1 - w0) / 1e9
    came = sum(
        count
        for one in found
        for moment, count in zip(one.deliveries, one.tokens, strict=True)
        if w0 <= moment < w1
    )
    done = sum(one.is_ok and w0 <= one.end < w1 for one in found)
    asked = sum(7 for one in found if one.first is not None and w0 <= one.first < w1)
    assert stage.throughput.all.out_tok_s == pytest.approx(came / width)
    assert stage.throughput.all.req_s == pytest.approx(done / width)
    assert stage.throughput.all.in_tok_s == pytest.approx(asked / width)
    assert sum(stage.timeline.out_tok) == came
    assert len(stage.timeline.out_tok) == len(stage.timeline.ttft_p50) == 8
    assert stage.throughput.peak_out_tok_s == max(stage.timeline.out_tok)


@given(requests())
@settings(deadline=None)
def test_concurrency_is_the_time_that_requests_were_held(found):
    w0, w1 = WINDOW

    stage = measure(found)

    held, steps = 0, []
    for one in found:
        end = one.end if one.end is not None else 16 * S
        held += max(min(end, w1) - max(one.sent, w0), 0)
        steps.append((one.sent, end))
    moments = [w0, *(start for start, _ in steps if w0 < start < w1)]
    highest = max(sum(start <= at < end for start, end in steps) for at in moments)
    assert stage.concurrency.mean == pytest.approx(held / (w1 - w0), abs=1e-9)
    assert stage.concurrency.max == highest
    mean = [level * 1e9 for level in stage.timeline.in_flight[:-1]]
    last = stage.timeline.in_flight[-1] * ((w1 - w0) % S)
    assert sum(mean) + last == pytest.approx(held, rel=1e-9, abs=1)


@given(requests(), st.integers(0, 11))
def test_a_request_that_had_failed_instead_makes_no_latency_better(found, index):
    """Whatever the request was, and wherever in its life it is given up."""
    well = [one for one in inside(found) if one.is_ok]
    if not well:
        return
    before = metric_values(well)
    victim = well[index % len(well)]
    victim.failure = "reset"
    kept = index % len(victim.deliveries)
    del victim.deliveries[kept:]
    del victim.tokens[kept:]
    victim.output_tokens = sum(victim.tokens)

    after = metric_values(well)

    for name in ("ttft", "e2e", "tpot", "itl"):
        for permille in (500, 900, 990):
            assert _point(after[name], permille) >= _point(before[name], permille) - 1e-12


def _point(values, permille: int) -> float:
    ordered = sorted(values)
    return ordered[-(-len(ordered) * permille // 1000) - 1] if ordered else -math.inf


def test_latency_counts_from_the_planned_moment_and_service_from_the_sending():
    stage = measure([make_request(0, 3 * S, ttft=80 * MS, lag=30 * MS)])

    assert stage.latency.ttft.all.p50 == pytest.approx(0.080)
    assert stage.latency.ttft.service.p50 == pytest.approx(0.050)
    assert stage.latency.e2e.all.p50 == pytest.approx(0.110)
    assert stage.latency.e2e.service.p50 == pytest.approx(0.080)
    assert stage.generator.lag.p50 == pytest.approx(0.030)
    assert stage.latency.tpot.service is None


def test_answer_of_one_delivery_has_no_time_per_token():
    stage = measure([make_request(0, 3 * S, gaps=(), tokens=[5])])

    assert stage.latency.tpot.all.n == 0
    assert stage.latency.tpot_n1.all.n == 0
    assert stage.latency.itl.all.n == 0
    assert stage.latency.stall.all.n == 0
    assert stage.latency.ttft.all.n == 1


def test_reasoning_delays_the_first_content_only():
    stage = measure([make_request(0, 3 * S, ttft=40 * MS, first_content=3 * S + 95 * MS)])

    assert stage.latency.ttft.all.p50 == pytest.approx(0.040)
    assert stage.latency.ttfc.all.p50 == pytest.approx(0.095)


def test_failures_are_infinite_in_all_and_absent_in_ok():
    found = [make_request(k, 3 * S + k * MS) for k in range(7)]
    found += [make_failure(7 + k, 4 * S, "http_5xx") for k in range(2)]
    found.append(make_failure(9, 5 * S, "unfinished", after=None))

    stage = measure(found)

    assert stage.counts.ok == 7
    assert (stage.counts.failed, stage.counts.unfinished) == (2, 1)
    assert stage.counts.by_class == {"http_5xx": 2, "unfinished": 1}
    assert stage.counts.messages["http_5xx"] == "http_5xx came"
    assert stage.latency.ttft.ok.n == 7
    assert stage.latency.ttft.ok.max == pytest.approx(0.050)
    assert stage.latency.ttft.all.n == 10
    assert stage.latency.ttft.all.p50 == pytest.approx(0.050)
    assert stage.latency.ttft.all.p90 == "inf"
    assert stage.latency.ttft.all.mean == "inf"
    assert stage.latency.ttft.all.sd is None
    # Seven times three gaps came; three failures owe three each.
    assert stage.latency.itl.all.n == 30
    assert sum(stage.timeline.errors) == 3


def test_hanging_up_on_purpose_is_no_failure():
    hung_up = make_request(1, 4 * S, failure="cancelled")

    stage = measure([make_request(0, 3 * S), hung_up])

    assert (stage.counts.ok, stage.counts.failed, stage.counts.cancelled) == (1, 0, 1)
    assert stage.latency.ttft.all.n == 1
    assert stage.latency.ttft.all.max == pytest.approx(0.050)


def test_request_planned_in_the_window_counts_to_its_end_and_others_do_not():
    late = make_request(0, 9 * S, ttft=3 * S)
    after = make_request(1, 9 * S + 300 * MS)
    before = make_request(2, 2 * S - 1)

    stage = measure([late, after, before])

    assert stage.latency.ttft.all.n == 1
    assert stage.latency.ttft.all.p50 == pytest.approx(3.0)
    assert stage.counts.sent == 1


def test_throughput_has_the_interval_of_twenty_batches():
    steady = [make_request(k, 2 * S + k * 365 * MS, gaps=()) for k in range(20)]

    stage = measure(steady)

    low, high = stage.throughput.all.ci95["out_tok_s"]
    assert low == pytest.approx(high)
    assert low == pytest.approx(1 / 0.365)


def test_tokens_tell_their_source_and_what_differs_from_our_own_count():
    found = [
        make_request(0, 3 * S, own_output_tokens=5, cached_tokens=3),
        make_request(1, 4 * S, token_source="events", own_output_tokens=9),
        make_request(2, 5 * S, planned_output_tokens=9, input_tokens=None, own_input_tokens=11),
    ]

    tokens = measure(found).tokens

    assert (tokens.input, tokens.output) == (7 + 7 + 11, 12)
    assert tokens.source == {"token_ids": 2, "events": 1}
    assert tokens.mismatch_mean == pytest.approx(0.25)
    assert tokens.short_output_fraction == pytest.approx(1 / 3)
    assert tokens.cached_fraction == pytest.approx(3 / 7)


def test_what_nobody_told_is_null_and_not_zero():
    stage = measure([make_request(0, 3 * S, planned_output_tokens=None)], samples=[])

    assert stage.tokens.cached_fraction is None
    assert stage.tokens.mismatch_mean is None
    assert stage.tokens.short_output_fraction is None
    assert stage.latency.server_queue is None
    assert stage.goodput.fraction is None
    assert stage.generator.cpu_max is None
    assert stage.generator.loop_lag_p99 is None


def test_stage_without_a_request_has_numbers_all_the_same():
    stage = measure([])

    assert stage.counts.ok == 0
    assert stage.throughput.all.out_tok_s == 0
    assert stage.latency.ttft.all.n == 0
    assert stage.concurrency.little_residual is None


def test_server_queue_comes_from_the_answers_else_from_the_servers_histogram():
    told = measure([make_request(k, 3 * S + k, server_queue_s=0.1 * k) for k in range(3)])
    name = "tgi_request_queue_duration"
    scraped = measure(
        [make_request(0, 3 * S)],
        metrics_before={f"{name}_sum": 1.0, f"{name}_count": 10},
        metrics_after={f"{name}_sum": 1.5, f"{name}_count": 15},
    )

    assert told.latency.server_queue.p50 == pytest.approx(0.1)
    assert scraped.latency.server_queue.mean == pytest.approx(0.1)
    assert scraped.latency.server_queue.n == 5
    assert scraped.latency.server_queue.p50 is None


def test_turns_are_told_apart():
    found = [
        make_request(k, 3 * S + k, turn=k % 2, ttft=(50 if k % 2 else 90) * MS, cached_tokens=k % 2)
        for k in range(8)
    ]
    found.append(make_failure(8, 4 * S, turn=1))

    first, second = measure(found).by_turn

    assert (first.turn, first.num_requests, first.num_errors) == (0, 4, 0)
    assert first.ttft.p50 == pytest.approx(0.090)
    assert second.ttft.p50 == pytest.approx(0.050)
    assert second.num_errors == 1
    assert second.ttft.max == "inf"
    assert second.cached_fraction == pytest.approx(1 / 7)


def test_ramp_is_told_in_slices_of_ten_seconds():
    found = poisson_requests(3, rate=6, stop=47 * S)
    record = make_stage(found, w1=47 * S, key="ramp")

    stage = measure_stage(record, make_spec("ramp", 1, ramp_to=9, ramp_kind="rate"))

    assert [part.start_s for part in stage.by_slice] == [0, 10, 20, 30, 40]
    assert [part.duration_s for part in stage.by_slice] == [10, 10, 10, 10, 7]
    assert sum(part.num_requests for part in stage.by_slice) == len(found)
    assert stage.load.value == "1..9"
    assert stage.is_stable is None
    assert not stage.phases.steady.found


def test_window_of_a_burst_lasts_until_its_last_answer():
    found = [make_request(k, 0, ttft=(k + 1) * S, gaps=()) for k in range(4)]
    record = make_stage(found, w1=1, drained=4 * S, is_closed_loop=True)

    stage = measure_stage(record, make_spec("burst", 4))

    assert stage.throughput.all.out_tok_s == pytest.approx(4 / 4)
    assert stage.phases.w1 == pytest.approx(4.0)


def test_closed_loop_obeys_littles_law():
    found = closed_loop_requests(11, users=3)
    record = make_stage(found, is_closed_loop=True, key="concurrency=3")

    stage = measure_stage(record, make_spec("concurrency", 3))

    assert stage.concurrency.max == 3
    assert stage.concurrency.mean == pytest.approx(3, rel=0.01)
    assert stage.concurrency.little_residual < 0.02
    assert stage.verdict == "valid"
    assert stage.throughput.offered_req_s is None
    assert stage.phases.steady.found


def test_generator_tells_of_itself():
    samples = [
        make_sample(at=S * k, worker=k % 2, cpu_share=0.9 if k % 2 else 0.1, gc_pause=k * MS)
        for k in range(3, 9)
    ]

    generator = measure([make_request(0, 3 * S)], samples=samples).generator

    assert generator.cpu_max == pytest.approx(0.9)
    assert generator.gc_pause_max == pytest.approx(0.008)
    assert generator.loop_lag_p99 == pytest.approx(100e-6)
    assert generator.events_per_delivery == 1
    assert generator.connect.max == 0
