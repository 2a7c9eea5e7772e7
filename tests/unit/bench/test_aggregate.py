"""Repeats of a stage, summed up."""

from __future__ import annotations

import pytest

from tests.builders import bench
from tgi_cli.runtime.bench.aggregate import aggregate
from tgi_cli.runtime.bench.result import Stage


def run(repeat: int, out_tok_s: float, value: float = 8) -> Stage:
    stage = bench.stage(value, repeat=repeat)
    stage.throughput.all.out_tok_s = out_tok_s
    return stage


def test_repeats_have_mean_spread_and_interval():
    stages = [run(k, speed) for k, speed in enumerate([98.0, 100.0, 105.0])]

    (found,) = aggregate([*stages, bench.stage(3)])

    assert (found.key, found.runs) == ("concurrency=8", 3)
    speed = found.metrics["out_tok_s"]
    assert speed["mean"] == pytest.approx(101)
    assert speed["sd"] == pytest.approx(13**0.5)
    assert speed["cv"] == pytest.approx(13**0.5 / 101)
    # t of 2 degrees of freedom is 4.30265.
    half = 4.30265 * (13 / 3) ** 0.5
    assert speed["ci95"] == (pytest.approx(101 - half), pytest.approx(101 + half))


def test_run_in_which_a_percentile_failed_makes_its_mean_infinite():
    stages = [run(0, 1), run(1, 1)]
    stages[1].latency.ttft.all.p99 = "inf"

    (found,) = aggregate(stages)

    assert found.metrics["ttft.p99"] == {"mean": "inf", "sd": None, "cv": None, "ci95": None}


def test_number_that_no_run_knows_is_left_out():
    (found,) = aggregate([run(0, 1), run(1, 1)])

    assert "goodput" not in found.metrics
    assert found.metrics["error_rate"]["mean"] == 0
    assert found.metrics["error_rate"]["cv"] is None
