"""The repeats of a stage together: what a number is over runs, and how much runs differ.

Runs are independent, so their interval is Student's. Spec: bench.md section 9.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

from tgi_cli.runtime.bench.result import Aggregate, Interval, Stage
from tgi_cli.runtime.bench.stage_values import HEADLINES, value_of
from tgi_cli.runtime.bench.statistics import mean_interval, number, real


def aggregate(stages: Iterable[Stage]) -> list[Aggregate]:
    """Return the summary of each stage that was run more than once, in the order of the first."""
    by_key: dict[str, list[Stage]] = {}
    for stage in stages:
        by_key.setdefault(stage.key, []).append(stage)
    return [
        Aggregate(key=key, runs=len(runs), metrics=_metrics(runs))
        for key, runs in by_key.items()
        if len(runs) > 1
    ]


def values_over_runs(runs: Iterable[Stage], name: str) -> np.ndarray:
    """Return a number of each run that has it."""
    values = (real(value_of(stage, name)) for stage in runs)
    return np.array([value for value in values if value is not None], dtype=np.float64)


def _metrics(runs: list[Stage]) -> dict[str, dict[str, Any]]:
    return {
        name: _spread(values)
        for name in HEADLINES
        if len(values := values_over_runs(runs, name)) > 0
    }


def _spread(values: np.ndarray) -> dict[str, Any]:
    """Return mean, sd, cv and the mean's interval; with a run that failed, the mean is infinite."""
    mean = float(values.mean())
    interval = mean_interval(values)
    sd = float(values.std(ddof=1)) if interval is not None else None
    ci95: Interval | None = None if interval is None else (number(interval[0]), number(interval[1]))
    return {
        "mean": number(mean),
        "sd": sd,
        "cv": sd / mean if sd is not None and mean else None,
        "ci95": ci95,
    }
