"""`tgi bench report`: draw a result again."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from tgi_cli import runtime
from tgi_cli.commands._console import BenchScreen, print_error
from tgi_cli.commands._options import completer
from tgi_cli.errors import StartError

_FORMATS = ("table", "csv", "html", "md")


def report(
    result: Annotated[Path, typer.Argument(metavar="result.json", help="A result of `tgi bench`.")],
    format: Annotated[
        str,
        typer.Option(
            metavar="|".join(_FORMATS), autocompletion=completer(_FORMATS), help="What to draw."
        ),
    ] = "table",
    ascii: Annotated[bool, typer.Option("--ascii", help="Draw with ASCII alone.")] = False,
    color: Annotated[bool, typer.Option(help="Colour on a terminal.")] = True,
) -> None:
    """Draw the report of a result."""
    if format not in _FORMATS:
        raise typer.BadParameter(f"{format!r} is not one of {', '.join(_FORMATS)}")
    screen = BenchScreen()
    try:
        has_colour = color and screen.is_terminal
        text = runtime.bench_report(result, format, is_ascii=ascii, has_colour=has_colour)
    except StartError as exc:
        print_error(exc)
        raise typer.Exit(exc.exit_code) from exc
    screen.report(text)
