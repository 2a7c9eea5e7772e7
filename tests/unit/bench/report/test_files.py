from __future__ import annotations

import csv
import io
import math
from pathlib import Path

import numpy as np
import pytest

from tests.builders.bench import result, stage
from tgi_cli.runtime.bench.report import hdr_files
from tgi_cli.runtime.bench.report.csv_file import render_csv
from tgi_cli.runtime.bench.report.formats import FORMATS, Format, render_as


def test_the_table_for_programs_has_a_row_for_each_stage() -> None:
    rows = list(csv.DictReader(io.StringIO(render_csv(result(stage(4), stage(8, num_failed=9))))))

    assert [row["stage"] for row in rows] == ["concurrency=4", "concurrency=8"]
    assert float(rows[0]["ttft_p50"]) == stage(4).latency.ttft.all.p50
    assert rows[1]["ttft_p99.9"] == "inf"
    assert rows[0]["offered_req_s"] == ""


def test_a_table_for_people_to_paste_has_the_same_rows_and_no_broken_cells() -> None:
    one = result(stage(4, key="a|b"), stage(8, num_failed=9))

    lines = render_as(one, "md").splitlines()

    rows = [line for line in lines if line.startswith("|")]
    assert len(rows) == 4
    assert {row.replace(r"\|", "").count("|") for row in rows} == {12}
    assert "fail" in rows[3]


@pytest.mark.parametrize("form", FORMATS)
def test_every_form_can_be_had(form: Format) -> None:
    text = render_as(result(), form)

    assert text.endswith("\n")
    assert "concurrency=8" in text


def test_a_table_without_stages_is_empty() -> None:
    one = result()
    one.stages.clear()

    assert render_csv(one).strip() == ""


def test_histograms_hold_the_values_to_three_digits(tmp_path: Path) -> None:
    pytest.importorskip("hdrh")
    from hdrh.histogram import HdrHistogram

    values = np.array([0.0123, 0.5, 7.0, math.inf])

    hdr_files.write_files(tmp_path, "rate=4.ttft", values, 1.7e9, 1.7e9 + 60)

    in_json = HdrHistogram.decode(hdr_files.encode(values))
    lines = (tmp_path / "rate=4.ttft.hlog").read_text().splitlines()
    assert lines[1].startswith("#[StartTime: 1700000000.000")
    in_file = HdrHistogram.decode(lines[-1].rpartition(",")[2])
    for histogram in (in_json, in_file):
        assert histogram.get_total_count() == 3
        assert histogram.get_max_value() == pytest.approx(7e6, rel=1e-3)
        assert histogram.get_value_at_percentile(1) == pytest.approx(12_300, rel=1e-3)
    assert "Percentile" in (tmp_path / "rate=4.ttft.hgrm").read_text()
