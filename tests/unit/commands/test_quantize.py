"""`tgi quantize` as it is called: what it prints where, and with which code it ends."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from tgi_cli import runtime
from tgi_cli.app import app
from tgi_cli.commands._quantize_screen import QuantizeBar, QuantizeLines
from tgi_cli.errors import QualityError
from tgi_cli.runtime.config.quantize import QuantizeOptions

Job = Callable[[QuantizeOptions, QuantizeLines], int]


def quantize(*words: str) -> Result:
    return CliRunner().invoke(app, ["quantize", *words])


@pytest.fixture
def job(monkeypatch: pytest.MonkeyPatch) -> list[QuantizeOptions]:
    """Return what was asked of the runtime, which shows two layers and a report."""
    asked: list[QuantizeOptions] = []

    def run(options: QuantizeOptions, screen: QuantizeLines) -> int:
        asked.append(options)
        screen.step("layer 0, mlp.down_proj")
        screen.advance(1, 2, 3725.0)
        screen.say("measuring")
        screen.report("| quality |", b'{\n  "quality": {"mean_kl": 0.5}\n}\n')
        return 0

    monkeypatch.setattr(runtime, "quantize_model", run)
    return asked


def test_options_arrive_as_they_are_given(job: list[QuantizeOptions]) -> None:
    words = ["m", "o", "--method", "awq+gptq", "--asym", "--group-size", "-1", "--max-kl=0.1"]
    words += ["--max-memory", "2GiB", "--no-evaluation", "--max-ppl-increase", "5%"]

    assert quantize(*words).exit_code == 0

    assert job == [
        QuantizeOptions(
            model="m",
            output="o",
            method="awq+gptq",
            sym=False,
            group_size=-1,
            max_kl=0.1,
            max_memory=2 << 30,
            evaluation=False,
            max_ppl_increase=0.05,
        )
    ]


def test_the_report_goes_to_stdout_and_all_else_to_stderr(job) -> None:
    found = quantize("m", "o")

    assert found.stdout == "| quality |\n"
    assert found.stderr == "layer 1 of 2 is done, 1:02:05 left\nmeasuring\n"


def test_json_has_an_object_on_every_line(job) -> None:
    found = quantize("m", "o", "--json-output")

    assert json.loads(found.stdout) == {"quality": {"mean_kl": 0.5}}
    assert [json.loads(line) for line in found.stderr.splitlines()] == [
        {"layers_done": 1, "layers": 2, "left_s": 3725.0},
        {"message": "measuring"},
    ]


def test_a_quiet_run_shows_the_report_alone(job) -> None:
    found = quantize("m", "o", "--log-level", "WARNING")

    assert (found.stdout, found.stderr) == ("| quality |\n", "")


def test_a_terminal_has_a_bar_with_the_time_that_is_left(monkeypatch) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "100")
    out, err = Terminal(), Terminal()
    screen = QuantizeBar(out, err)

    screen.step("layer 0, mlp.down_proj")
    screen.advance(1, 2, 65.0)
    screen.say("measuring")

    shown = err.getvalue()
    assert "layer 0, mlp.down_proj" in shown
    assert "1/2" in shown
    assert "1:05 left" in shown
    assert shown.endswith("measuring\n")
    assert out.getvalue() == ""


def failing(error: BaseException) -> Job:
    def run(options: QuantizeOptions, screen: QuantizeLines) -> int:
        raise error

    return run


@pytest.mark.parametrize(
    ("error", "exit_code", "text"),
    [
        (QualityError("too far", hint="more bits"), 3, "Error: too far\nHint: more bits\n"),
        (KeyboardInterrupt(), 130, "Interrupted: --resume goes on with what is done.\n"),
    ],
)
def test_ends_that_are_not_well_have_codes_of_their_own(
    monkeypatch: pytest.MonkeyPatch, error: BaseException, exit_code: int, text: str
) -> None:
    monkeypatch.setattr(runtime, "quantize_model", failing(error))

    found = quantize("m", "o")

    assert (found.exit_code, found.stderr) == (exit_code, text)


@pytest.mark.parametrize(
    "words",
    [
        ["--evaluate", "x", "--against", "y"],
        ["m", "o", "--backend", "gptqmodel"],
        ["m", "o", "--dry-run"],
    ],
)
def test_nothing_is_promised_of_a_run_that_can_not_go_on(monkeypatch, words) -> None:
    monkeypatch.setattr(runtime, "quantize_model", failing(KeyboardInterrupt()))

    assert quantize(*words).stderr == "Interrupted: no model was written.\n"


@pytest.mark.parametrize(
    ("words", "exit_code", "text"),
    [
        (["m"], 1, "Give the model and the folder to write"),
        (["--evaluate", "x"], 1, "--evaluate needs --against"),
        (["m", "o", "--method", "exl2"], 2, "is not one of gptq"),
        (["m", "o", "--bits", "5"], 2, "is not one of 2, 3, 4, 8"),
        (["m", "o", "--sequence-length", "1"], 2, "1 is too short"),
        (["m", "o", "--no-evaluation", "--evaluation-samples", "3"], 1, "measures on nothing"),
        (["m", "o", "--device", "tpu"], 2, "is not cpu, cuda or cuda:N"),
        (["nowhere/at/all", "o"], 1, "no such file or folder"),
    ],
)
def test_bad_usage_is_told(
    words: list[str], exit_code: int, text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)

    found = quantize(*words)

    assert found.exit_code == exit_code
    assert text in " ".join(found.stderr.replace("│", " ").split())
    assert list(tmp_path.iterdir()) == []


def test_the_job_gets_the_whole_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    from tgi_cli.runtime.quantize import pipeline

    seen: list[Any] = []
    monkeypatch.setattr(pipeline, "quantize", lambda *args: seen.append(args) or 0)

    assert quantize("m", "o").exit_code == 0

    assert seen[0][1].num_cores >= 1
    assert seen[0][1].available_memory_bytes > 0
