"""Say what differs between two results, and whether it is more than chance.

Stages are paired by their load. A number is worse if the interval of its ratio is clear of 1 and it
changed by more than the threshold. The interval is Welch's over repeats; of single runs, a block
bootstrap in time over `requests.jsonl`; without that file, from the intervals in the result. Of
many numbers some would look worse by chance alone: to be judged, the 95 % that are shown are
widened to hold for all that are compared together (Bonferroni). Spec: bench.md section 13.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import msgspec

from tgi_cli.runtime.bench.aggregate import values_over_runs
from tgi_cli.runtime.bench.bootstrap import Blocks, cut_into_blocks, draw, ratio_of_draws
from tgi_cli.runtime.bench.ratios import ratio_of_intervals, ratio_over_runs, widened
from tgi_cli.runtime.bench.records import RequestRecord
from tgi_cli.runtime.bench.request_log import requests_by_stage
from tgi_cli.runtime.bench.result import Interval, Number, Result, Stage
from tgi_cli.runtime.bench.result_file import read_result
from tgi_cli.runtime.bench.stage_values import HEADLINES, HIGHER_IS_BETTER, is_proven
from tgi_cli.runtime.bench.statistics import number, real

Change = Literal["better", "worse", "same", "unclear", "not comparable"]
Requests = Mapping[tuple[str, int], list[RequestRecord]]

DEFAULT_THRESHOLD = 0.05
_LENGTHS = (
    *("input-tokens", "output-tokens", "dataset", "text", "trace", "conversations"),
    *("shared-prefix", "prefix-cache", "ignore-eos"),
)
"""Options that say what is asked and how much of it."""

_SEEDS = (1, 2)  # of the draws: the same files give the same verdict


@dataclass(frozen=True, slots=True)
class Run:
    """A result, and the requests that it was counted from where they are still there."""

    name: str
    result: Result
    requests: Requests


class Compared(msgspec.Struct, kw_only=True):
    metric: str
    a: Number
    b: Number
    change: Number  # b / a - 1
    ci95: Interval | None  # of b / a
    verdict: Change = "not comparable"


class Pair(msgspec.Struct, kw_only=True):
    """One stage in both results."""

    stage: str
    runs: tuple[int, int]
    not_comparable: list[str]  # reasons
    metrics: list[Compared]


class Difference(msgspec.Struct, kw_only=True):
    name: str
    a: Any
    b: Any


class Comparison(msgspec.Struct, kw_only=True):
    a: str
    b: str
    threshold: float
    pairs: list[Pair]
    only_a: list[str]  # stages
    only_b: list[str]
    differences: list[Difference]

    def has(self, verdict: Change) -> bool:
        return any(one.verdict == verdict for pair in self.pairs for one in pair.metrics)


def load_run(path: Path) -> Run:
    """Read a result, or that of a folder, and the requests beside it.

    Raises:
        UsageError: it can't be read.
    """
    path = path / "result.json" if path.is_dir() else path
    beside = path.with_name("requests.jsonl")
    requests = requests_by_stage(beside) if beside.is_file() else {}
    return Run(str(path), read_result(path), requests)


def compare(a: Run, b: Run, *, threshold: float = DEFAULT_THRESHOLD) -> Comparison:
    """Compare two runs; `a` is what `b` is measured against."""
    stages_a, stages_b = _by_key(a.result), _by_key(b.result)
    differences = list(_differences(a.result, b.result))
    reasons = list(_reasons_of_runs(a.result, b.result, differences))
    pairs = [
        _pair(key, (a, stages_a[key]), (b, stages_b[key]), reasons)
        for key in stages_a
        if key in stages_b
    ]
    num_compared = sum(one.ci95 is not None for pair in pairs for one in pair.metrics)
    for pair in pairs:
        if not pair.not_comparable:
            for one in pair.metrics:
                one.verdict = judge(one, threshold, num_compared)
    return Comparison(
        a=a.name,
        b=b.name,
        threshold=threshold,
        pairs=pairs,
        only_a=[key for key in stages_a if key not in stages_b],
        only_b=[key for key in stages_b if key not in stages_a],
        differences=differences,
    )


def exit_code(comparisons: Sequence[Comparison], *, fails_on_worse: bool) -> tuple[int, str | None]:
    """Return the code of `compare` and why: 7 for something worse, 5 if nothing could be said."""
    if not fails_on_worse:
        return 0, None
    for comparison in comparisons:
        for pair in comparison.pairs:
            worse = [one.metric for one in pair.metrics if one.verdict == "worse"]
            if worse:
                return 7, f"{comparison.b}, {pair.stage}: worse in {', '.join(worse)}"
    for comparison in comparisons:
        if all(pair.not_comparable for pair in comparison.pairs):
            return 5, f"{comparison.b} is not comparable with {comparison.a}"
    return 0, None


def _by_key(result: Result) -> dict[str, list[Stage]]:
    found: dict[str, list[Stage]] = {}
    for stage in result.stages:
        found.setdefault(stage.key, []).append(stage)
    return found


def _reasons_of_runs(a: Result, b: Result, differences: Sequence[Difference]) -> Iterator[str]:
    if a.endpoint.model != b.endpoint.model:
        yield f"other model: {a.endpoint.model}, {b.endpoint.model}"
    for one in differences:
        if one.name in _LENGTHS:
            yield f"other {one.name}: {_shown(one.a)}, {_shown(one.b)}"


def _reasons_of_stages(a: Sequence[Stage], b: Sequence[Stage]) -> Iterator[str]:
    if a[0].load != b[0].load:
        yield "other load"
    for name, stages in (("A", a), ("B", b)):
        if any(stage.verdict == "invalid" for stage in stages):
            reason = next(iter(stages[0].verdict_reasons), "")
            yield f"invalid stage in {name}" + (f": {reason}" if reason else "")


def _pair(
    key: str,
    a: tuple[Run, list[Stage]],
    b: tuple[Run, list[Stage]],
    reasons: Sequence[str],
) -> Pair:
    """Return the pair with its numbers, not yet judged."""
    (run_a, stages_a), (run_b, stages_b) = a, b
    reasons = [*reasons, *_reasons_of_stages(stages_a, stages_b)]
    blocks: tuple[Blocks, Blocks] | None = None
    if min(len(stages_a), len(stages_b)) == 1 and not reasons:
        cut_a, cut_b = _blocks(run_a, stages_a[0]), _blocks(run_b, stages_b[0])
        blocks = (cut_a, cut_b) if cut_a is not None and cut_b is not None else None
    metrics = []
    for name in HEADLINES:
        values_a, values_b = values_over_runs(stages_a, name), values_over_runs(stages_b, name)
        if len(values_a) == 0 or len(values_b) == 0:
            continue
        mean_a, mean_b = float(values_a.mean()), float(values_b.mean())
        ratio = 1.0 if mean_a == mean_b else mean_b / mean_a if mean_a else math.inf
        interval = None
        if not reasons:
            interval = _interval(name, stages_a, stages_b, blocks)
        metrics.append(
            Compared(
                metric=name,
                a=number(mean_a),
                b=number(mean_b),
                change=number(ratio - 1),
                ci95=None if interval is None else (number(interval[0]), number(interval[1])),
            )
        )
    runs = (len(stages_a), len(stages_b))
    return Pair(stage=key, runs=runs, not_comparable=list(reasons), metrics=metrics)


def _blocks(run: Run, stage: Stage) -> Blocks | None:
    requests = run.requests.get((stage.key, stage.repeat))
    window = round(stage.phases.w0 * 1e9), round(stage.phases.w1 * 1e9)
    if not requests or window[1] <= window[0]:
        return None
    return cut_into_blocks(requests, window, stage.goodput.limits)


def _interval(
    name: str,
    a: Sequence[Stage],
    b: Sequence[Stage],
    blocks: tuple[Blocks, Blocks] | None,
) -> tuple[float, float] | None:
    """Return the interval of the ratio, by the best means that there is."""
    if min(len(a), len(b)) > 1:
        return ratio_over_runs(values_over_runs(a, name), values_over_runs(b, name))
    if not (is_proven(a[0], name) and is_proven(b[0], name)):
        return None  # too few values for an interval of the percentile alone
    if blocks is not None:
        before, after = (draw(part, name, seed) for part, seed in zip(blocks, _SEEDS, strict=True))
        if before is not None and after is not None:
            return ratio_of_draws(before, after)
    return ratio_of_intervals(a[0], b[0], name)


def judge(one: Compared, threshold: float, num_compared: int) -> Change:
    """Judge a number among so many: worse needs both, an interval clear of 1 and a large change."""
    if one.ci95 is None:
        return "unclear"
    shown = real(one.ci95[0]) or 0.0, real(one.ci95[1]) or 0.0
    change = real(one.change) or 0.0
    low, high = widened(shown, 1 + change, num_compared)
    if abs(change) > threshold and (low > 1 or high < 1):
        is_better = (low > 1) == (one.metric in HIGHER_IS_BETTER)
        return "better" if is_better else "worse"
    return "same" if shown[0] >= 1 - threshold and shown[1] <= 1 + threshold else "unclear"


def _differences(a: Result, b: Result) -> Iterator[Difference]:
    facts_a, facts_b = dict(_facts(a)), dict(_facts(b))
    for name in (*facts_a, *(name for name in facts_b if name not in facts_a)):
        before, after = facts_a.get(name), facts_b.get(name)
        if before != after:
            yield Difference(name=name, a=before, b=after)


def _facts(result: Result) -> Iterator[tuple[str, Any]]:
    """Yield all that could explain a difference, by name."""
    for name, value in result.config.items():
        if name != "out":
            yield name.replace("_", "-"), value
    yield "seed", result.seed
    yield "tgi version", result.tgi_version
    for name, value in msgspec.to_builtins(result.endpoint).items():
        yield from _flat(f"endpoint {name}", value)
    for name, value in msgspec.to_builtins(result.client).items():
        if name != "calibration":
            yield from _flat(f"client {name}", value)


def _flat(name: str, value: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from _flat(f"{name} {key}", inner)
    else:
        yield name, value


def _shown(value: Any) -> str:
    return "unset" if value is None else str(value)
