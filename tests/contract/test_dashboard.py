"""Dashboards find what they ask for: spec/metrics.md section 8."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import textwrap
from pathlib import Path

import pytest

from tests.architecture.imports import ROOT
from tests.builders.router import script_for, serving
from tgi_cli.runtime.router.metric_families import FAMILIES
from tools.dashboard import ROWS, dashboard

GUIDE = (ROOT / "docs/guides/monitoring.md").read_text(encoding="utf-8")
QUERIES = [
    query for panels in ROWS.values() for panel in panels for query in panel.queries.values()
]
SELECTOR = re.compile(r'(tgi_\w+)\{container="\$service"(?:,(\w+="\w+"))?\}')


async def test_every_query_finds_series_once_there_was_traffic():
    async with serving(script_for("abc")) as client:
        await client.post("/generate", {"inputs": "x", "parameters": {"max_new_tokens": 5}})
        _, _, text = await client.get("/metrics")

    shown = re.findall(r"^(tgi_\w+)(?:\{(.*)\})? ", text, re.MULTILINE)
    for query in QUERIES:
        wanted = SELECTOR.findall(query)
        assert wanted, query
        assert query.count("tgi_") == len(wanted), f"not filtered by the service: {query}"
        for name, label in wanted:
            assert any(n == name and label in labels for n, labels in shown), (name, label)


def test_the_replicas_of_a_service_can_be_counted():
    assert 'count(tgi_request_count{container="$service"})' in QUERIES


def test_the_dashboard_takes_the_place_of_the_old_one():
    made = json.loads(dashboard())

    assert (made["title"], made["uid"]) == ("Text Generation Inference", "RHSk7EL4kdqsd")
    titles = [panel["title"] for panel in made["panels"]]
    assert len(set(titles)) == len(titles)
    assert len({panel["id"] for panel in made["panels"]}) == len(titles)


def test_the_guide_names_series_that_exist():
    families = {family.name for family in FAMILIES}

    named = set(re.findall(r"\btgi_(?!cli)\w+", GUIDE))

    assert named
    for name in named:
        assert families & {name, re.sub(r"_(bucket|count|sum)$", "", name)}, name


@pytest.mark.skipif(shutil.which("promtool") is None, reason="Debian's package prometheus")
def test_the_guides_alerts_are_rules_that_prometheus_reads(tmp_path: Path):
    *_, alerts = re.findall(r"^```yaml\n(.*?)^```", GUIDE, re.MULTILINE | re.DOTALL)
    rules = tmp_path / "rules.yaml"
    rules.write_text("groups:\n- name: guide\n  rules:\n" + textwrap.indent(alerts, "  "))

    checked = subprocess.run(["promtool", "check", "rules", rules], capture_output=True, text=True)

    assert "4 rules found" in checked.stdout, checked.stderr


@pytest.mark.skipif(shutil.which("promtool") is None, reason="Debian's package prometheus")
def test_every_query_is_one_that_prometheus_reads(tmp_path: Path):
    rules = tmp_path / "rules.yaml"
    lines = ["groups:", "- name: x", "  rules:"]
    for index, query in enumerate(QUERIES):
        lines += [f"  - record: q{index}", f"    expr: {json.dumps(query)}"]
    rules.write_text("\n".join(lines))

    checked = subprocess.run(
        ["promtool", "check", "rules", rules], capture_output=True, text=True, check=False
    )

    assert checked.returncode == 0, checked.stdout + checked.stderr
