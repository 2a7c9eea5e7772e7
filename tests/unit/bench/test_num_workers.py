"""How many processes `--workers auto` starts: so many that each is half busy."""

from __future__ import annotations

from typing import Any

import pytest

from tgi_cli.runtime.bench import preparation
from tgi_cli.runtime.bench.inputs import Input
from tgi_cli.runtime.bench.loads import stage_specs
from tgi_cli.runtime.bench.preparation import num_workers
from tgi_cli.runtime.bench.stages import PromptInput
from tgi_cli.runtime.config.bench import BenchOptions


class Answers:
    """Inputs whose answers have these lengths, in turn."""

    def __init__(self, *lengths: int | None) -> None:
        self._lengths = lengths

    def inputs(self, _streams: object, start: int, count: int) -> list[Input]:
        numbers = range(start, start + count)
        return [
            Input(
                prompt=PromptInput(text="x"),
                output_tokens=self._lengths[number % len(self._lengths)],
            )
            for number in numbers
        ]

    def primers(self, _streams: object) -> list[Input]:
        return []


def count(
    lengths: tuple[int | None, ...],
    *,
    itl_s: float | None = None,
    calibration: dict[str, float] | None = None,
    **options: Any,
) -> int:
    asked = BenchOptions(**options)
    return num_workers(asked, stage_specs(asked), Answers(*lengths), itl_s, calibration)


@pytest.fixture(autouse=True)
def _on_a_large_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(preparation, "num_cores", lambda: 64)


@pytest.mark.parametrize(
    ("lengths", "expected"),
    [((10,), 1), ((512,), 11), ((500, 524), 11), ((None,), 3), ((None, 512), 11)],
)
def test_an_open_loop_needs_workers_for_the_lengths_of_its_own_answers(
    lengths: tuple[int | None, ...], expected: int
) -> None:
    assert count(lengths, rate=(100.0,)) == expected


def test_short_answers_are_limited_by_requests() -> None:
    assert count((1,), rate=(3000.0,)) == 6


def test_users_get_tokens_at_the_pace_that_the_probe_saw() -> None:
    assert count((512,), concurrency=(1000,), itl_s=0.02) == 10
    assert count((512,), concurrency=(1000,), itl_s=None) == 1


def test_a_calibrated_machine_is_known_better() -> None:
    figures = {"events_s": 51_200.0, "requests_s": 5_000.0}

    assert count((512,), rate=(100.0,), calibration=figures) == 2


def test_what_is_asked_for_is_done() -> None:
    assert count((512,), rate=(100.0,), workers=3) == 3
