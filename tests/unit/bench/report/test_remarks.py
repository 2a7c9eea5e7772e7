"""What must be known beside the numbers is said, and nothing is said where all is usual."""

from __future__ import annotations

from typing import Any

import pytest

from tests.builders.bench import latency, result, stage
from tgi_cli.runtime.bench.report.html import render_html
from tgi_cli.runtime.bench.report.remarks import remarks
from tgi_cli.runtime.bench.report.terminal import render
from tgi_cli.runtime.bench.result import Stage, Tokens


def counted(**fields: Any) -> Stage:
    return stage(4, tokens=Tokens(**{"source": {"usage_final": 3}, **fields}))


def packed(seconds: float, seconds_n1: float) -> Stage:
    """A stage whose answers took so long per token, by each of the two counts."""
    one = stage(4)
    one.latency.tpot, one.latency.tpot_n1 = latency([seconds]), latency([seconds_n1])
    return one


def without_warmup() -> Stage:
    one = stage(4)
    one.phases.warmup_s = 0.0
    return one


@pytest.mark.parametrize(
    ("one", "said"),
    [
        (counted(mismatch_mean=0.05), "the server's counts of output tokens and the tokenizer's "
         "are 5.0 % apart"),
        (counted(source={"usage_final": 3, "tokenizer": 1}), "output tokens were counted in "
         "several ways: usage_final 3, tokenizer 1"),
        (counted(source={"events": 3}), "output tokens are counted by events: approximate"),
        (counted(short_output_fraction=0.25), "25.0 % of the outputs are shorter than planned"),
        (packed(0.010, 0.0105), "tpot p50 10.0 ms; over all tokens but the first, as most "
         "programs have it, 10.5 ms"),
        (without_warmup(), "no warm-up"),
        (stage(kind="offline"), "all requests at once: latencies are not meaningful"),
    ],
)  # fmt: skip
def test_what_is_unusual_is_said_in_every_report(one: Stage, said: str) -> None:
    assert said in list(remarks(one))
    assert said in render(result(one))
    assert said.split("'")[0] in render_html(result(one))


def test_what_is_usual_is_not_worth_a_line() -> None:
    usual = [stage(4), counted(mismatch_mean=0.02, short_output_fraction=0.0), packed(0.01, 0.01)]

    assert [list(remarks(one)) for one in usual] == [[], [], []]
