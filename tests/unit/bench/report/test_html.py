from __future__ import annotations

import re
from html.parser import HTMLParser

import pytest

from tests.builders.bench import result, stage
from tgi_cli.runtime.bench.report.charts import load_charts
from tgi_cli.runtime.bench.report.html import render_html
from tgi_cli.runtime.bench.result import Endpoint, Result, SloOutcome, Sweep

VOID = frozenset({"meta", "br"})


class Balance(HTMLParser):
    """Asserts that every element is closed."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []

    def handle_starttag(self, tag: str, attrs: object) -> None:
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def whole() -> Result:
    stages = [stage(value, seed=int(value)) for value in (1, 2, 4, 8)]
    stages.append(stage(12, kind="rate", num_failed=40, is_stable=False))
    slo = SloOutcome(expr="ttft.p99<500ms@c=8", stage="concurrency=8", value=0.4, passed=True)
    return result(*stages, slo=[slo], sweep=Sweep(sat_req_s=9.0, knee=8.0))


@pytest.mark.parametrize("one", [whole(), result(stage(4, num_ok=3)), result()])
def test_the_page_is_whole_small_and_needs_no_network(one: Result) -> None:
    page = render_html(one)

    balance = Balance()
    balance.feed(page)
    assert balance.open == []
    assert len(page.encode()) < 1_000_000
    assert re.findall(r'(?:src|href|url\()\s*=?\s*["\']?https?:', page) == []
    assert "default-src 'none'" in page


def test_the_script_is_short() -> None:
    script = re.search(r"<script>(.*?)</script>", render_html(result()), re.DOTALL)

    assert script is not None
    assert script[1].count("\n") < 200


def test_what_came_from_outside_is_text() -> None:
    evil = "</td><script>alert(1)</script>"
    one = result(
        stage(4, num_failed=1, verdict="invalid", verdict_reasons=[evil]),
        endpoint=Endpoint(url=evil, protocol="tgi", model=evil, server={"info": evil}),
        argv=[evil],
        config={evil: evil},
        meta={evil: evil},
    )
    one.stages[0].counts.messages["http_429"] = evil

    page = render_html(one)

    assert "<script>alert" not in page
    assert page.count("<script>") == 1


def test_limits_and_the_knee_are_lines_in_the_charts() -> None:
    charts = load_charts(whole())

    assert next(chart.y_lines for chart in charts if chart.title.startswith("ttft")) == [
        (500.0, "ttft.p99<500ms")
    ]
    assert [c.x_lines for c in charts if "rate" in c.x_name] == [[(8.0, "knee")]] * 3


def test_numbers_that_are_not_to_be_trusted_have_a_banner() -> None:
    page = render_html(result(stage(4, verdict="invalid", verdict_reasons=["CPU 95 %"])))

    assert '<p class="banner">concurrency=4: these numbers are not to be trusted: CPU 95 %' in page
