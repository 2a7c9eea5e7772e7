"""Which stage a sweep runs next, and what it has found when it ends."""

from __future__ import annotations

import math

import pytest

from tgi_cli.runtime.bench.sweep import (
    Found,
    NextStage,
    Rung,
    gain_interval,
    next_step,
)


def closed(users, tok_s, *, half_width=0.01, **fields):
    interval = (tok_s * (1 - half_width), tok_s * (1 + half_width))
    values = {"req_s": tok_s / 100, "error_rate": 0.0, "out_tok_s_ci95": interval} | fields
    return Rung(is_closed_loop=True, value=users, out_tok_s=tok_s, **values)


def opened(rate, **fields):
    values = {"out_tok_s": rate * 100, "out_tok_s_ci95": None, "req_s": rate, "error_rate": 0.0}
    return Rung(is_closed_loop=False, value=rate, **(values | fields))


def run(stage_result, *, has_slo=False):
    """Sweep a server of which `stage_result` says what each stage shows."""
    rungs = []
    while isinstance(step := next_step(rungs, has_slo=has_slo), NextStage):
        rungs.append(stage_result(step))
        assert len(rungs) < 60
    return rungs, step


def server(capacity=1000.0, *, limit_ms=None, half_width=0.01, errors_from=math.inf):
    """A server of `capacity` tokens per second, to which each user adds 100."""

    def stage_result(step):
        if step.is_closed_loop:
            tok_s = min(100.0 * step.value, capacity)
            rate = 0.5 if step.value >= errors_from else 0.0
            return closed(step.value, tok_s, half_width=half_width, error_rate=rate)
        load = step.value * 100 / capacity
        meets = None if limit_ms is None else 10 / max(1.001 - load, 1e-3) < limit_ms
        return opened(step.value, is_stable=load < 0.99, meets_slo=meets)

    return stage_result


def test_users_double_until_they_bring_nothing_then_one_rung_in_the_middle():
    rungs, found = run(server())

    users = [rung.value for rung in rungs if rung.is_closed_loop]
    assert users == [1, 2, 4, 8, 16, 32, 23]
    assert found.sat_req_s == 10.0
    assert found.knee == 16


def test_rates_are_shares_of_the_saturated_one_until_a_stage_is_unstable():
    rungs, found = run(server())

    rates = [rung.value for rung in rungs if not rung.is_closed_loop]
    assert rates == pytest.approx([2.5, 5.0, 7.0, 8.0, 9.0, 10.0])
    assert found.slo_req_s is None


def test_nothing_faster_is_tried_after_an_unstable_rate():
    def stage_result(step):
        return (
            server()(step) if step.is_closed_loop else opened(step.value, is_stable=step.value < 6)
        )

    rungs, _ = run(stage_result)

    assert [r.value for r in rungs if not r.is_closed_loop] == pytest.approx([2.5, 5.0, 7.0])


def test_three_bisections_close_in_on_the_highest_rate_that_keeps_the_limits():
    rungs, found = run(server(limit_ms=40.0), has_slo=True)

    rates = [rung.value for rung in rungs if not rung.is_closed_loop]
    assert rates[6:] == pytest.approx([7.5, 7.75, 7.625])
    assert found.slo_req_s == pytest.approx(7.5)


def test_a_limit_that_no_rate_keeps_is_looked_for_below_the_lowest():
    rungs, found = run(server(limit_ms=12.0), has_slo=True)

    rates = [rung.value for rung in rungs if not rung.is_closed_loop]
    assert rates[6:] == pytest.approx([1.25, 1.875, 1.5625])
    assert found.slo_req_s == pytest.approx(1.5625)


def test_errors_end_the_ladder_and_do_not_count_as_capacity():
    rungs, found = run(server(errors_from=8))

    assert [rung.value for rung in rungs if rung.is_closed_loop] == [1, 2, 4, 8, 6]
    assert found.sat_req_s == 6.0


def test_the_client_at_its_limit_ends_the_sweep():
    rungs = [closed(1, 100.0), closed(2, 200.0, is_valid=False)]

    found = next_step(rungs, has_slo=False)

    assert isinstance(found, Found)
    assert found.is_client_limited
    assert found.sat_req_s == 1.0


def test_a_gain_that_is_not_sure_to_be_small_goes_on():
    sure = [closed(1, 100.0), closed(2, 102.0)]
    unsure = [closed(1, 100.0, half_width=0.1), closed(2, 102.0, half_width=0.1)]

    assert next_step(unsure, has_slo=False) == NextStage(True, 4.0)
    assert next_step(sure, has_slo=False) != NextStage(True, 4.0)


def test_stages_too_short_to_be_sure_do_not_double_the_users_for_ever():
    rungs, _ = run(server(half_width=0.5))

    assert max(rung.value for rung in rungs) == 64


def test_the_gain_has_an_interval_only_where_both_rungs_have_one():
    before, after = closed(1, 100.0), closed(2, 150.0)

    low, high = gain_interval(before, after)

    assert low < 0.5 < high
    assert high - low == pytest.approx(2 * 1.5 * math.sqrt(2) * 0.01)
    assert gain_interval(before, closed(2, 150.0, out_tok_s_ci95=None)) is None


def test_a_server_that_only_fails_has_no_saturation():
    rungs, found = run(server(errors_from=1))

    assert len(rungs) == 1
    assert (found.sat_req_s, found.knee) == (None, None)
