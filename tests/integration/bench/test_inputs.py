"""Synthetic inputs are as long as they were planned, by the server's own count."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.builders.bench_run import run_bench
from tests.builders.bench_tokenizers import family_tokenizer
from tests.builders.mock import mock_process

FAMILIES = ["byte-level", "unigram", "wordpiece"]
LENGTHS = ("--input-tokens=uniform:6..90", "--output-tokens=2")


def tokenizer_file(folder: Path, family: str, *, has_bos: bool) -> str:
    file = folder / "tokenizer.json"
    file.write_text(family_tokenizer(family, has_bos=has_bos).tokenizer_json, encoding="utf-8")
    return str(file)


@pytest.mark.parametrize("has_bos", [False, True], ids=["plain", "bos"])
@pytest.mark.parametrize("family", FAMILIES)
def test_the_server_counts_the_input_tokens_that_were_planned(
    tmp_path: Path, family: str, has_bos: bool
) -> None:
    file = tokenizer_file(tmp_path, family, has_bos=has_bos)
    load = ("--rate=60", "--arrival=constant", "--duration=1s", f"--tokenizer={file}")

    with mock_process("--ttft=1ms", "--itl=1ms", "--tokenizer", file) as url:
        run = run_bench(
            url, tmp_path / "out", "--protocol=completions", *load, *LENGTHS, "--prefix-cache=avoid"
        )

    assert len(run.requests) == 60
    for each in run.requests:
        assert each.failure is None
        assert each.input_tokens == each.planned_input_tokens
    assert len({each.input_tokens for each in run.requests}) > 20


def test_what_a_chats_template_adds_is_learned(tmp_path: Path) -> None:
    file = tokenizer_file(tmp_path, "byte-level", has_bos=False)
    load = ("--rate=20", "--duration=1s", "--protocol=chat", f"--tokenizer={file}")
    mock = ("--ttft=1ms", "--itl=1ms", "--tokenizer", file, "--template-tokens=11")

    with mock_process(*mock) as url:
        run = run_bench(url, tmp_path / "out", *load, "--input-tokens=40", "--output-tokens=2")

    assert run.result.endpoint.template_overhead == 11
    assert {each.input_tokens for each in run.requests} == {40}
