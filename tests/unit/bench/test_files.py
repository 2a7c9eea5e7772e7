"""`result.json` and `requests.jsonl`: what is read is what was written."""

from __future__ import annotations

import json
import os
import resource
from collections.abc import Iterator
from contextlib import contextmanager

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.builders import bench
from tests.builders.bench_records import (
    MS,
    S,
    make_failure,
    make_request,
    make_spec,
    make_stage,
    poisson_requests,
)
from tgi_cli.errors import ArgumentError
from tgi_cli.runtime.bench.measures import measure_stage
from tgi_cli.runtime.bench.request_log import append_requests, read_requests, requests_by_stage
from tgi_cli.runtime.bench.result_file import read_result, write_result


def test_result_is_read_as_it_was_written(tmp_path):
    found = [*poisson_requests(1), make_failure(999, 5 * S)]
    stage = measure_stage(make_stage(found), make_spec(), {"ttft": 0.1})
    written = bench.result(stage)

    write_result(tmp_path / "result.json", written)

    assert read_result(tmp_path / "result.json") == written
    assert '"max": "inf"' in (tmp_path / "result.json").read_text()


def test_odd_numbers_of_the_servers_metrics_do_not_spoil_the_file(tmp_path):
    odd = {"a": float("inf"), "b": float("nan"), "c": 2.0}
    record = make_stage(poisson_requests(1), metrics_after=odd, metrics_series=[odd])

    write_result(tmp_path / "result.json", bench.result(measure_stage(record, make_spec())))

    metrics = read_result(tmp_path / "result.json").stages[0].server_metrics
    assert metrics.after == {"c": 2.0}
    assert metrics.series == [{"c": 2.0}]


def test_fields_of_later_versions_are_passed_over(tmp_path):
    path = tmp_path / "result.json"
    write_result(path, bench.result())
    content = json.loads(path.read_text())
    content["novelty"] = {"x": 1}
    content["stages"][0]["novelty"] = [1]
    path.write_text(json.dumps(content))

    assert read_result(path) == bench.result()


@pytest.mark.parametrize(
    ("content", "why"),
    [
        ("", "is no result"),
        ("{}", "is no result"),
        ('{"schema":"tgi-bench/2"}', "has the schema 'tgi-bench/2'"),
        ('{"schema":"tgi-bench/1","id":3}', "is no result"),
        ("[" * 100_000, "is no result"),
    ],
)
def test_file_that_is_no_result_of_ours_is_refused(tmp_path, content, why):
    path = tmp_path / "result.json"
    path.write_text(content)

    with pytest.raises(ArgumentError, match=why):
        read_result(path)


def test_missing_result_is_refused(tmp_path):
    with pytest.raises(ArgumentError, match="can't be read: No such file"):
        read_result(tmp_path / "result.json")


def test_write_that_fails_leaves_what_was_there(tmp_path, monkeypatch):
    path = tmp_path / "result.json"
    write_result(path, bench.result())
    before = path.read_bytes()

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        write_result(path, bench.result(id="another"))

    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


@given(
    st.lists(st.integers(0, 9 * S), max_size=6),
    st.integers(0, 60 * S),
    st.integers(0, 4 * S),
    st.none() | st.text(max_size=5),
)
def test_requests_are_read_to_the_nanosecond(tmp_path_factory, gaps, sched, ttft, text):
    path = tmp_path_factory.mktemp("log") / "requests.jsonl"
    written = make_request(
        7, sched, ttft=ttft, gaps=gaps, text=text, cached_tokens=0, server_queue_s=0.25, turn=0
    )
    failed = make_failure(8, sched, "dropped", after=None, wake=None)

    append_requests(path, make_stage([written, failed], key="rate=3", repeat=2))

    assert list(read_requests(path)) == [("rate=3", 2, written), ("rate=3", 2, failed)]


def test_deliveries_are_microseconds_since_the_one_before(tmp_path):
    path = tmp_path / "requests.jsonl"

    append_requests(path, make_stage([make_request(0, 3 * S, ttft=20 * MS, gaps=[5_000, 1_234])]))

    line = json.loads(path.read_text())
    assert line["deliveries"] == [20_000, 5, 1.234]
    assert line["stage"] == "rate=4"
    assert "text" not in line


def test_numbers_counted_from_the_file_are_those_of_the_result(tmp_path):
    record = make_stage([*poisson_requests(5), make_failure(999, 5 * S)], repeat=1)
    stage = measure_stage(record, make_spec())
    append_requests(tmp_path / "requests.jsonl", make_stage(poisson_requests(6)))
    append_requests(tmp_path / "requests.jsonl", record)

    found = requests_by_stage(tmp_path / "requests.jsonl")

    record.requests = found["rate=4", 1]
    again = measure_stage(record, make_spec())
    assert msgspec.json.encode(again) == msgspec.json.encode(stage)
    assert set(found) == {("rate=4", 0), ("rate=4", 1)}


def test_line_that_was_cut_off_is_left_out(tmp_path):
    path = tmp_path / "requests.jsonl"
    append_requests(path, make_stage(poisson_requests(1)[:3]))
    path.write_bytes(path.read_bytes()[:-9])

    assert [request.index for _, _, request in read_requests(path)] == [0, 1]


@pytest.mark.parametrize("line", ["{}", "[]", "nonsense", '{"stage":"a","repeat":0,"index":"x"}'])
def test_line_that_is_no_request_is_refused_by_its_number(tmp_path, line):
    path = tmp_path / "requests.jsonl"
    append_requests(path, make_stage(poisson_requests(1)[:2]))
    path.write_text(path.read_text() + line + "\n")

    with pytest.raises(ArgumentError, match="line 3 is no request"):
        list(read_requests(path))


def test_requests_that_cannot_all_be_written_are_not_written_at_all(tmp_path):
    path = tmp_path / "requests.jsonl"
    append_requests(path, make_stage(poisson_requests(1)[:3]))
    before = path.read_bytes()

    with _largest_file(len(before) + 50_000), pytest.raises(OSError, match="File too large"):
        append_requests(path, make_stage(poisson_requests(2)))

    assert path.read_bytes() == before


@contextmanager
def _largest_file(num_bytes: int) -> Iterator[None]:
    """A disk that takes so much of a file, and then no more."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (num_bytes, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
