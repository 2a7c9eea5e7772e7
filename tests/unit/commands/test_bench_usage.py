"""A mistake in what was asked for names the flag, its value and what would do; it ends with 2."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from tgi_cli.app import app


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (("--arrival", "gamma"), "Error: --arrival needs --rate, or --ramp of rates.\n"),
        (
            ("--rate", "4", "--concurrency", "3"),
            "Error: --concurrency and --rate are given; a run has one load.\n"
            "Hint: A comma list makes one stage per value: --rate 2,4.\n",
        ),
        (("--cacert", "absent.pem"), "Error: --cacert: there is no file absent.pem.\n"),
        (("compare", "old", "new"), "Error: old can't be read: No such file or directory\n"),
        (("report", "old"), "Error: old can't be read: No such file or directory\n"),
        (("mock", "--fault", "429"), "--fault: '429' is not SHARE:KIND, such as 10%:429"),
        (("mock", "--log", "absent/log"), "--log absent/log can't be written: No such file"),
        (("mock", "--tokenizer", "absent"), "'--tokenizer': file 'absent' does not exist"),
    ],
)
def test_a_mistake_is_said_in_words_of_our_own(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, args: tuple[str, ...], said: str
) -> None:
    monkeypatch.chdir(tmp_path)

    result = CliRunner().invoke(app, ["bench", *args])

    assert said in result.output
    assert "ArgumentValidation" not in result.output
    assert result.exit_code == 2
