"""Comparing results: worse is said when it is so, and hardly ever when it isn't."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.builders import bench
from tests.builders.bench_records import (
    S,
    closed_loop_requests,
    make_failure,
    make_spec,
    make_stage,
    poisson_requests,
)
from tgi_cli.errors import ArgumentError
from tgi_cli.runtime.bench.bootstrap import cut_into_blocks, draw, ratio_of_draws
from tgi_cli.runtime.bench.compare import Comparison, Run, compare, exit_code, load_run
from tgi_cli.runtime.bench.measures import measure_stage
from tgi_cli.runtime.bench.ratios import ratio_over_runs, widened
from tgi_cli.runtime.bench.records import RequestRecord
from tgi_cli.runtime.bench.report.comparison import COMPARISON_FORMATS, render_comparisons
from tgi_cli.runtime.bench.request_log import append_requests
from tgi_cli.runtime.bench.result_file import write_result


def run(
    seeds: Sequence[int],
    slowdown: float = 1.0,
    *,
    make: Callable[..., list[RequestRecord]] = closed_loop_requests,
    keeps_requests: bool = True,
    **changes: object,
) -> Run:
    """A result of made-up stages, one for each seed: repeats if there are several.

    Runs as a whole differ by a hundredth, which only repeats can show.
    """
    drift = 0.01 if len(seeds) > 1 else 0.0
    is_closed_loop = make is closed_loop_requests
    kind, load = ("concurrency", {"users": 2}) if is_closed_loop else ("rate", {"rate": 4})
    stages, requests = [], {}
    for repeat, seed in enumerate(seeds):
        found = make(seed, slowdown=slowdown, drift=drift, num_tokens=3, **load)
        record = make_stage(found, repeat=repeat, key=f"{kind}=4", is_closed_loop=is_closed_loop)
        stages.append(measure_stage(record, make_spec(kind, 4), {"e2e": 0.2}))
        requests[record.key, repeat] = found
    return Run("run", bench.result(*stages, **changes), requests if keeps_requests else {})


def verdicts(comparison: Comparison) -> dict[str, str]:
    return {one.metric: one.verdict for pair in comparison.pairs for one in pair.metrics}


@pytest.mark.parametrize("keeps_requests", [True, False])
@pytest.mark.parametrize("make", [closed_loop_requests, poisson_requests])
def test_two_runs_of_one_server_are_not_worse_in_nineteen_of_twenty_tries(make, keeps_requests):
    num_worse = 0
    for k in range(20):
        a = run([2 * k], make=make, keeps_requests=keeps_requests)
        b = run([2 * k + 1], make=make, keeps_requests=keeps_requests)

        num_worse += compare(a, b).has("worse")

    assert num_worse <= 1


def test_repeats_of_one_server_are_not_worse():
    tries = [compare(run(range(k, k + 3)), run(range(k + 3, k + 6))) for k in range(0, 42, 6)]

    assert sum(one.has("worse") for one in tries) == 0


def test_server_that_is_a_tenth_slower_is_worse_over_five_repeats():
    comparison = compare(run(range(5)), run(range(5, 10), 1.1))

    found = verdicts(comparison)
    for metric in ("out_tok_s", "req_s", "ttft.p50", "tpot.p50", "itl.p50", "itl.p99", "e2e.p50"):
        assert found[metric] == "worse", metric
    assert "better" not in found.values()
    (pair,) = comparison.pairs
    by_name = {one.metric: one for one in pair.metrics}
    assert by_name["itl.p50"].change == pytest.approx(0.1, abs=0.03)
    low, high = by_name["itl.p50"].ci95
    assert 1.05 < low < 1.1 < high < 1.15


def test_server_that_is_a_tenth_faster_is_better():
    found = verdicts(compare(run(range(5), 1.1), run(range(5, 10))))

    assert found["out_tok_s"] == found["itl.p50"] == "better"
    assert "worse" not in found.values()


def test_single_runs_are_judged_from_their_requests_or_else_from_their_intervals():
    for keeps_requests in (True, False):
        a = run([1], keeps_requests=keeps_requests)
        b = run([2], 1.25, keeps_requests=keeps_requests)

        found = verdicts(compare(a, b))

        assert found["out_tok_s"] == found["itl.p50"] == found["e2e.p50"] == "worse"


def test_change_below_the_threshold_is_not_worse_however_sure():
    a, b = run(range(5)), run(range(5, 10), 1.1)

    assert "worse" not in verdicts(compare(a, b, threshold=0.2)).values()


def test_percentile_of_too_few_requests_is_unclear():
    a, b = run([1], make=poisson_requests), run([2], 1.5, make=poisson_requests)
    assert a.result.stages[0].latency.ttft.all.n < 368

    found = verdicts(compare(a, b))

    assert found["ttft.p99"] == "unclear"
    assert found["ttft.p50"] == "worse"


def with_failures(run_: Run, every: int) -> Run:
    (stage_key,) = run_.requests
    requests = [
        make_failure(one.index, one.sched) if k % every == 0 else one
        for k, one in enumerate(run_.requests[stage_key])
    ]
    stage = measure_stage(make_stage(requests), make_spec(), {"e2e": 0.2})
    return Run("failing", bench.result(stage), {stage_key: requests})


def test_failures_where_there_were_none_are_worse():
    a = run([1], make=poisson_requests)
    b = with_failures(run([1], make=poisson_requests), every=4)

    comparison = compare(a, b)

    found = verdicts(comparison)
    assert found["error_rate"] == found["goodput"] == "worse"
    assert found["e2e.p50"] != "better"
    (pair,) = comparison.pairs
    errors = next(one for one in pair.metrics if one.metric == "error_rate")
    assert (errors.a, errors.change) == (0, "inf")


def test_no_failures_in_both_is_the_same():
    assert verdicts(compare(run([1]), run([2])))["error_rate"] == "same"


def test_infinite_percentiles_can_be_compared():
    a = run([1], make=poisson_requests)
    b = with_failures(run([1], make=poisson_requests), every=1)

    (worse,) = compare(a, b).pairs
    (same,) = compare(b, b).pairs

    by_name = {one.metric: one for one in worse.metrics}
    assert by_name["e2e.p50"].b == "inf"
    assert by_name["e2e.p50"].verdict == "worse"
    assert {one.verdict for one in same.metrics} <= {"same", "unclear"}


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        (
            {"config": {"input-tokens": "900", "output_tokens": "128"}},
            "other input-tokens: 512, 900",
        ),
        ({"endpoint": None}, "other model: smollm2-135m, another"),
    ],
)
def test_other_models_and_lengths_are_not_comparable(changes, reason):
    a, b = run([1]), run([2], 1.5)
    if changes.get("endpoint", 1) is None:
        b.result.endpoint.model = "another"
    else:
        b.result.config = changes["config"]

    comparison = compare(a, b)

    (pair,) = comparison.pairs
    assert pair.not_comparable == [reason]
    assert {one.verdict for one in pair.metrics} == {"not comparable"}
    assert exit_code([comparison], fails_on_worse=True)[0] == 5


def test_invalid_stage_is_not_comparable():
    a, b = run([1]), run([2])
    b.result.stages[0].verdict = "invalid"
    b.result.stages[0].verdict_reasons = ["worker CPU 99 % > 90 %"]

    (pair,) = compare(a, b).pairs

    assert pair.not_comparable == ["invalid stage in B: worker CPU 99 % > 90 %"]


def test_other_arrivals_of_the_same_rate_are_another_load():
    a, b = run([1], make=poisson_requests), run([2], make=poisson_requests)
    b.result.stages[0].load.arrival = "constant"

    (pair,) = compare(a, b).pairs

    assert pair.not_comparable == ["other load"]


def test_stages_are_paired_by_load_and_the_rest_is_named():
    a = Run("a", bench.result(bench.stage(1), bench.stage(8)), {})
    b = Run("b", bench.result(bench.stage(8), bench.stage(32)), {})

    comparison = compare(a, b)

    assert [pair.stage for pair in comparison.pairs] == ["concurrency=8"]
    assert (comparison.only_a, comparison.only_b) == (["concurrency=1"], ["concurrency=32"])


def test_everything_that_differs_is_listed():
    a, b = run([1]), run([2], seed=43, tgi_version="0.2.0")
    b.result.client.cores = 64
    b.result.endpoint.server = {"info": {"version": "3"}}
    b.result.config = {"input_tokens": "512", "output_tokens": "128", "top-p": 0.9, "out": "x"}

    differences = {one.name: (one.a, one.b) for one in compare(a, b).differences}

    assert differences == {
        "top-p": (None, 0.9),
        "seed": (42, 43),
        "tgi version": ("0.1.0", "0.2.0"),
        "endpoint server info version": (None, "3"),
        "client cores": (2, 64),
    }


def test_exit_code_is_seven_only_if_worse_was_to_fail():
    slower = compare(run(range(3)), run(range(3, 6), 1.3))
    same = compare(run(range(3)), run(range(3)))

    assert exit_code([same, slower], fails_on_worse=True)[0] == 7
    assert "worse" in exit_code([slower], fails_on_worse=True)[1]
    assert exit_code([slower], fails_on_worse=False) == (0, None)
    assert exit_code([same], fails_on_worse=True) == (0, None)


def test_run_is_loaded_with_the_requests_beside_it(tmp_path):
    record = make_stage(poisson_requests(1))
    write_result(tmp_path / "result.json", bench.result(measure_stage(record, make_spec())))
    append_requests(tmp_path / "requests.jsonl", record)

    from_folder, from_file = load_run(tmp_path), load_run(tmp_path / "result.json")

    assert from_folder.requests == from_file.requests == {("rate=4", 0): record.requests}
    (tmp_path / "requests.jsonl").unlink()
    assert load_run(tmp_path).requests == {}
    with pytest.raises(ArgumentError, match="can't be read"):
        load_run(Path(tmp_path / "nowhere.json"))


def test_draws_give_the_value_that_was_measured_in_the_middle():
    found = poisson_requests(4)
    stage = measure_stage(make_stage(found), make_spec())
    blocks = cut_into_blocks(found, (0, 60 * S), {})

    for name, value in (
        ("out_tok_s", stage.throughput.all.out_tok_s),
        ("ttft.p50", stage.latency.ttft.all.p50),
        ("itl.p99", stage.latency.itl.all.p99),
    ):
        drawn = draw(blocks, name, 1)
        assert np.quantile(drawn, 0.1) < value < np.quantile(drawn, 0.9)
    assert draw(blocks, "goodput", 1) is None


def test_ratio_of_draws_takes_nothing_over_nothing_as_one():
    zeros = np.zeros(1000)

    assert ratio_of_draws(zeros, zeros) == (1.0, 1.0)
    assert ratio_of_draws(zeros, zeros + 1) == (math.inf, math.inf)
    assert ratio_of_draws(np.full(1000, math.nan), zeros) is None


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        ([1.0, 1.0], [math.inf, math.inf], (math.inf, math.inf)),
        ([math.inf, math.inf], [1.0, 2.0], (0.0, 0.0)),
        ([0.0, 0.0], [0.0, 0.0], (1.0, 1.0)),
        ([0.0, 0.0], [0.1, 0.1], (math.inf, math.inf)),
        ([1.0, math.inf], [1.0, 1.0], None),
        ([0.5, 0.5], [0.0, 0.0], (0.0, 0.0)),
    ],
)
def test_ratio_over_runs_of_odd_values(before, after, expected):
    assert ratio_over_runs(np.array(before), np.array(after)) == expected


@given(st.floats(0.1, 10), st.floats(1.01, 3), st.integers(2, 500))
def test_interval_for_many_numbers_holds_that_for_one(ratio, factor, count):
    interval = (ratio / factor, ratio * factor)

    low, high = widened(interval, ratio, count)

    assert low < interval[0] < interval[1] < high
    assert widened(interval, ratio, 1) == pytest.approx(interval)


def test_every_format_tells_what_was_found():
    a, b = run([1]), run([2], 1.5)
    b = Run("b<script>\x1b[31m|", b.result, b.requests)
    b.result.endpoint.protocol = "tgi"

    texts = {form: render_comparisons([compare(a, b)], form) for form in COMPARISON_FORMATS}

    for text in texts.values():
        assert "worse" in text
        assert "\x1b" not in text
        assert text.endswith("\n")
    assert json.loads(texts["json"])[0]["pairs"][0]["stage"] == "concurrency=4"
    assert "<script>\x1b" not in texts["html"]
    assert "&lt;script&gt;" in texts["html"]
    assert "differs: endpoint protocol: chat | tgi" in texts["table"]
    assert "| out_tok_s |" in texts["md"]
    assert "ttft p50 ms" in texts["table"]


def test_results_that_share_no_stage_say_so():
    a, b = Run("a", bench.result(bench.stage(1)), {}), Run("b", bench.result(bench.stage(2)), {})

    assert "not comparable: no stage is in both" in render_comparisons([compare(a, b)], "table")
    assert exit_code([compare(a, b)], fails_on_worse=True)[0] == 5
