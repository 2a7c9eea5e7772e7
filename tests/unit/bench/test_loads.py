"""Which stages the options ask for."""

from __future__ import annotations

import pytest

from tgi_cli.errors import UsageError
from tgi_cli.runtime.bench.loads import stage_specs
from tgi_cli.runtime.config.bench.forms import Ramp, Warmup
from tgi_cli.runtime.config.bench.options import BenchOptions


def test_without_a_load_there_are_three_closed_loops_of_20_seconds():
    stages = stage_specs(BenchOptions())

    assert [stage.key for stage in stages] == ["concurrency=1", "concurrency=4", "concurrency=16"]
    assert {stage.duration_s for stage in stages} == {20.0}
    assert all(stage.is_closed_loop for stage in stages)


def test_a_comma_list_makes_a_stage_of_each_value():
    stages = stage_specs(BenchOptions(rate=(2.0, 4.5), max_concurrency=9, drain=7.0))

    assert [(stage.key, stage.value) for stage in stages] == [("rate=2", 2.0), ("rate=4.5", 4.5)]
    assert {stage.duration_s for stage in stages} == {60.0}
    assert {(stage.max_concurrency, stage.drain_s) for stage in stages} == {(9, 7.0)}
    assert not any(stage.is_closed_loop for stage in stages)


def test_a_number_of_requests_lifts_the_usual_limit_of_time():
    [stage] = stage_specs(BenchOptions(rate=(2.0,), requests=1000))

    assert (stage.num_requests, stage.duration_s) == (1000, None)


def test_both_limits_hold_where_both_are_given():
    [stage] = stage_specs(BenchOptions(concurrency=(3,), requests=1000, duration=5.0))

    assert (stage.num_requests, stage.duration_s) == (1000, 5.0)


def test_bursts_repeat_within_their_stage():
    options = BenchOptions(burst=(1, 8), repeat=3)

    stages = stage_specs(options)

    assert [stage.num_requests for stage in stages] == [3, 24]
    assert [stage.warmup_requests for stage in stages] == [1, 8]
    assert options.num_runs == 1
    assert not any(stage.keeps_tail_load for stage in stages)


@pytest.mark.parametrize(("kind", "is_closed"), [("rate", False), ("concurrency", True)])
def test_a_ramp_takes_as_long_as_it_says(kind, is_closed):
    [stage] = stage_specs(BenchOptions(ramp=(Ramp(1.0, 50.0, 120.0),), ramp_kind=kind))

    assert (stage.key, stage.duration_s) == ("ramp=1..50/120s", 120.0)
    assert stage.is_closed_loop is is_closed


def test_an_offline_stage_sends_all_at_once():
    [stage] = stage_specs(BenchOptions(offline=True, requests=77))

    assert (stage.key, stage.num_requests, stage.duration_s) == ("offline", 77, None)


@pytest.mark.parametrize(
    ("by", "key", "is_closed"),
    [
        ({}, "conversations,concurrency=1", True),
        ({"concurrency": (7,)}, "conversations,concurrency=7", True),
        ({"rate": (0.5,)}, "conversations,rate=0.5", False),
    ],
)
def test_conversations_are_led_by_users_or_start_at_a_rate(by, key, is_closed):
    [stage] = stage_specs(BenchOptions(conversations="file", **by))

    assert stage.key == key
    assert stage.is_closed_loop is is_closed


def test_a_trace_is_replayed_to_its_end():
    [stage] = stage_specs(BenchOptions(trace="file"))

    assert (stage.key, stage.duration_s, stage.num_requests) == ("trace", None, None)


@pytest.mark.parametrize("load", [{"burst": (4,)}, {"offline": True}, {"rate": (2.0,)}])
def test_no_warm_up_is_no_warm_up(load):
    [stage] = stage_specs(BenchOptions(warmup=Warmup(requests=0), **load))

    assert (stage.warmup_s, stage.warmup_requests) == (0.0, None)


def test_a_sweep_finds_its_own_stages():
    assert stage_specs(BenchOptions(sweep=True)) == []


@pytest.mark.parametrize(
    "load",
    [
        {"rate": (1e6,)},
        {"offline": True, "requests": 10**8},
        {"ramp": (Ramp(1.0, 1e6, 60.0),)},
        {"burst": (9999,), "repeat": 10**6},
    ],
)
def test_a_stage_too_large_to_plan_is_refused(load):
    with pytest.raises(UsageError, match="in a stage"):
        stage_specs(BenchOptions(**load))
