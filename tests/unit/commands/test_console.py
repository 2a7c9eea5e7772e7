from __future__ import annotations

import pytest

from tests.builders.serving import hardware, model_facts
from tgi_cli.commands._console import SilentScreen, StartScreen
from tgi_cli.runtime.config.options import ServeOptions
from tgi_cli.runtime.config.resolve import resolve


def test_the_table_has_every_decision_and_no_markup(capsys: pytest.CaptureFixture[str]) -> None:
    options = ServeOptions(revision="[bold]x")
    config = resolve(options, model_facts(), hardware())

    StartScreen().decided(config)

    output = capsys.readouterr().out
    assert all(decision.name in output for decision in config.decisions)


def test_the_address_comes_with_a_request_to_try(capsys: pytest.CaptureFixture[str]) -> None:
    StartScreen().listening("http://127.0.0.1:3000", needs_key=False)

    output = capsys.readouterr().out
    assert "Serving on http://127.0.0.1:3000\n" in output
    assert "curl http://127.0.0.1:3000/generate" in output
    assert "Authorization" not in output


def test_a_server_with_a_key_says_where_it_goes(capsys: pytest.CaptureFixture[str]) -> None:
    StartScreen().listening("http://127.0.0.1:3000", needs_key=True)

    assert "-H 'Authorization: Bearer" in capsys.readouterr().out


def test_a_machine_sees_nothing_on_stdout(capsys: pytest.CaptureFixture[str]) -> None:
    screen = SilentScreen()

    screen.decided(resolve(ServeOptions(), model_facts(), hardware()))
    screen.listening("http://127.0.0.1:3000", needs_key=False)

    assert capsys.readouterr().out == ""
