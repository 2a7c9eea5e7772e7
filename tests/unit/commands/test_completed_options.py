"""Every command's values are offered by the tab key: held over the whole command line."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import pytest
import typer

from tgi_cli.app import app

CHOICES = re.compile(r"[a-z0-9_.-]+(\|[a-z0-9_.-]+)+")  # a word in capitals is no value


def parameters(command: Any, context: Any) -> Iterator[tuple[str, Any, Any]]:
    """Yield each command's path, context and parameter, those of its subcommands too."""
    yield from ((context.command_path, context, each) for each in command.params)
    for name, each in getattr(command, "commands", {}).items():
        yield from parameters(each, typer.Context(each, parent=context, info_name=name))


def found() -> list[Any]:
    root = typer.main.get_command(app)
    every = parameters(root, typer.Context(root, info_name="tgi"))
    return [
        pytest.param(context, each, id=f"{path} {each.opts[-1]}") for path, context, each in every
    ]


def offered(context: Any, parameter: Any, start: str) -> list[str]:
    items = parameter.shell_complete(context, start)
    return [item.value for item in items if item.type == "plain"]


@pytest.mark.parametrize(("context", "parameter"), found())
def test_values_are_offered(context: Any, parameter: Any) -> None:
    metavar = parameter.metavar or ""

    if CHOICES.fullmatch(metavar):
        assert offered(context, parameter, "") == metavar.split("|")
    elif metavar == "MODEL" or parameter.name == "model_id":
        assert "demo" in offered(context, parameter, "de")
    else:  # files, by the shell itself
        assert offered(context, parameter, "./x") == []
