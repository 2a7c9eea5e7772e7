from __future__ import annotations

from typing import Any

import pytest
from typer.testing import CliRunner

from tgi_cli import runtime
from tgi_cli.app import app
from tgi_cli.commands._options import join_switches
from tgi_cli.errors import ArgumentError, CapacityError
from tgi_cli.runtime.config.options import ServeOptions
from tgi_cli.runtime.config.settings import SETTINGS


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[ServeOptions]:
    """Collect what `tgi serve` asks of the runtime, which then serves nothing."""
    seen: list[ServeOptions] = []

    def serve(options: ServeOptions, *_: Any) -> int:
        seen.append(options)
        return 0

    monkeypatch.setattr(runtime, "serve", serve)
    for setting in SETTINGS:
        for name in setting.variables:
            monkeypatch.delenv(name, raising=False)
    return seen


def run(*args: str, **env: str) -> Any:
    return CliRunner().invoke(app, ["serve", *args], env=env)


def test_no_model_serves_the_demo(asked: list[ServeOptions]) -> None:
    assert run().exit_code == 0
    assert asked == [ServeOptions()]


@pytest.mark.parametrize(
    "args", [("org/name",), ("--model-id", "org/name"), ("--model-id=org/name",)]
)
def test_a_model_is_an_argument_or_an_option(
    asked: list[ServeOptions], args: tuple[str, ...]
) -> None:
    run(*args)

    assert asked[0].model_id == "org/name"


def test_two_models_are_one_too_many(asked: list[ServeOptions]) -> None:
    result = run("one", "--model-id", "two")

    assert result.exit_code == 1
    assert "two models are given" in result.output
    assert asked == []


@pytest.mark.parametrize(
    ("args", "expected"),
    [
        (("--json-output",), True),
        (("--json-output=true",), True),
        (("--json-output=false",), False),
        (("--json-output", "false"), False),
        (("--json-output", "demo"), True),
        (("--json-output", "--port", "7"), True),
    ],
)
def test_switches_stand_alone_or_have_a_value(
    asked: list[ServeOptions], args: tuple[str, ...], expected: bool
) -> None:
    run(*args)

    assert asked[0].json_output is expected


def test_words_after_two_hyphens_are_left_alone() -> None:
    assert list(join_switches(["--", "--json-output"])) == ["--", "--json-output"]


def test_short_flags_are_the_ports_and_the_timeouts(asked: list[ServeOptions]) -> None:
    run("-p", "81", "-g", "7")

    assert (asked[0].port, asked[0].graceful_termination_timeout) == (81, 7)


def test_origins_may_be_repeated(asked: list[ServeOptions]) -> None:
    run("--cors-allow-origin", "https://a.example", "--cors-allow-origin", "https://b.example")

    assert asked[0].cors_allow_origin == ("https://a.example", "https://b.example")


def test_values_take_underscores(asked: list[ServeOptions]) -> None:
    run("--usage-stats", "no_stack")

    assert asked[0].usage_stats == "no-stack"


def test_flags_win_over_variables(asked: list[ServeOptions]) -> None:
    run("--port", "1", TGI_PORT="2", PORT="3")

    assert asked[0].port == 1


@pytest.mark.parametrize(
    "args",
    [
        ("--no-such-flag",),
        ("--port", "65536"),
        ("--port", "-1"),
        ("--dtype", "int8"),
        ("--json-output=maybe",),
        ("one", "two"),
    ],
)
def test_a_line_that_cannot_be_parsed_ends_with_2(
    asked: list[ServeOptions], args: tuple[str, ...]
) -> None:
    assert run(*args).exit_code == 2
    assert asked == []


def test_a_variable_that_cannot_be_read_ends_with_1_and_one_line(asked: list[ServeOptions]) -> None:
    result = run(PORT="high")

    assert result.exit_code == 1
    assert result.output.startswith('Error: ArgumentValidation("invalid value for `PORT`')
    assert asked == []


@pytest.mark.parametrize(
    ("error", "lines"),
    [
        (ArgumentError("`x` must be > 0"), ['Error: ArgumentValidation("`x` must be > 0")']),
        (CapacityError("too big", hint="Shrink it."), ["Error: too big", "Hint: Shrink it."]),
    ],
)
def test_start_errors_are_lines_without_a_traceback(
    monkeypatch: pytest.MonkeyPatch, error: Exception, lines: list[str]
) -> None:
    def serve(*_: Any) -> int:
        raise error

    monkeypatch.setattr(runtime, "serve", serve)

    result = run()

    assert result.exit_code == 1
    assert result.output.splitlines() == lines


def test_help_names_every_flag_under_its_heading() -> None:
    output = run("--help").output

    for setting in SETTINGS:
        if setting.has_flag:
            assert setting.flag in output
            assert f"\n{setting.group}:\n" in output
