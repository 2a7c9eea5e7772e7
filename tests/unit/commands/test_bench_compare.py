"""`tgi bench compare` as it is called: what it prints, and with which code it ends."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from tests.builders import bench
from tgi_cli.app import app
from tgi_cli.runtime.bench.result_file import write_result


def compare(*words: object) -> Result:
    return CliRunner().invoke(app, ["bench", "compare", *map(str, words)])


@pytest.fixture
def results(tmp_path: Path) -> list[Path]:
    """A result, one of the same server, and one that is half as fast."""
    paths = []
    for name, slowdown in (("a", 1.0), ("b", 1.0), ("slow", 2.0)):
        stages = [bench.stage(8, seed=k, repeat=k) for k in range(3)]
        for k, stage in enumerate(stages):
            stage.latency.itl.all.p50 = (0.010 + 0.0001 * k) * slowdown
        (tmp_path / name).mkdir()
        paths.append(tmp_path / name / "result.json")
        write_result(paths[-1], bench.result(*stages))
    return paths


def test_same_results_end_well(results):
    found = compare(results[0], results[1], "--fail-on", "worse")

    assert found.exit_code == 0
    assert "itl p50 ms" in found.stdout
    assert "worse" not in found.stdout


def test_worse_result_ends_with_seven_when_asked_to_and_says_why(results):
    found = compare(*results, "--fail-on", "worse")

    assert found.exit_code == 7
    assert "worse in itl.p50" in found.stderr
    assert compare(*results).exit_code == 0
    assert compare(*results, "--fail-on", "worse", "--threshold", "100%").exit_code == 0


def test_folders_and_formats(results):
    found = compare(results[0].parent, results[2].parent, "--format", "json")

    (comparison,) = json.loads(found.stdout)
    verdicts = {one["metric"]: one["verdict"] for one in comparison["pairs"][0]["metrics"]}
    assert verdicts["itl.p50"] == "worse"
    assert compare(*results, "--format", "html").stdout.startswith("<!doctype html>")


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (["a.json"], "Two results or more"),
        (["a.json", "b.json"], "can't be read"),
        (["a.json", "b.json", "--format", "pdf"], "is not one of table"),
        (["a.json", "b.json", "--fail-on", "better"], "is not one of worse"),
        (["a.json", "b.json", "--threshold", "5"], "is not a percentage"),
    ],
)
def test_bad_usage_ends_with_two(words, why):
    found = compare(*words)

    assert found.exit_code == 2
    assert why in " ".join(found.stderr.replace("│", " ").split())
