"""A warm cache under `--prefix-cache avoid` is what a report says first."""

from __future__ import annotations

from typing import Any

import pytest

from tests.builders.bench import result, stage
from tgi_cli.runtime.bench.report.html import render_html
from tgi_cli.runtime.bench.report.markdown import render_markdown
from tgi_cli.runtime.bench.report.terminal import render
from tgi_cli.runtime.bench.result import Result, ServerMetrics, Tokens

OURS = "tgi_prefix_cache_{}_tokens"
VLLM = "vllm:prefix_cache_{}_total"


def told(cached_fraction: float | None, **config: Any) -> Result:
    return result(stage(4, tokens=Tokens(input=9, cached_fraction=cached_fraction)), config=config)


@pytest.mark.parametrize(
    ("cached_fraction", "config", "is_warned"),
    [
        (0.02, {}, True),
        (0.02, {"prefix-cache": "avoid"}, True),
        (0.01, {}, False),
        (None, {}, False),
        (0.5, {"prefix-cache": "allow"}, False),
    ],
)
def test_hits_that_were_to_be_avoided_are_the_first_line(
    cached_fraction: float | None, config: dict[str, Any], is_warned: bool
) -> None:
    found = told(cached_fraction, **config)

    assert render(found).startswith("WARM CACHE: 2.0 % of the input tokens") is is_warned
    assert render_markdown(found).startswith("**`WARM CACHE") is is_warned
    assert ("WARM CACHE" in render_html(found)) is is_warned


@pytest.mark.parametrize("counter", [OURS, VLLM])
def test_the_servers_counters_tell_where_usage_does_not(counter: str) -> None:
    hits, queries = counter.format("hit"), counter.format("query")
    if counter is VLLM:
        hits, queries = counter.format("hits"), counter.format("queries")
    metrics = ServerMetrics(before={hits: 900, queries: 1000}, after={hits: 960, queries: 3000})

    text = render(result(stage(4, server_metrics=metrics)))

    assert text.startswith("WARM CACHE: 3.0 %")


def test_hits_of_a_load_that_repeats_itself_are_told_as_such() -> None:
    assert "(--shared-prefix repeats some)" in render(told(0.4, **{"shared-prefix": "100x2"}))
