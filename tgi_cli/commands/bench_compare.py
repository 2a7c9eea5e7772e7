"""`tgi bench compare`: what differs between results, and whether it is more than chance."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from tgi_cli import runtime
from tgi_cli.commands._console import BenchScreen, print_error
from tgi_cli.commands._options import completer
from tgi_cli.errors import StartError
from tgi_cli.runtime.config.bench.forms import percentage

_FORMATS = ("table", "md", "json", "html")
_FAIL_ON = ("worse",)


def compare(
    results: Annotated[
        list[Path],
        typer.Argument(
            metavar="A.json B.json...",
            help="Results of `tgi bench`, or their folders; the others are held against the first.",
        ),
    ],
    format: Annotated[
        str,
        typer.Option(
            metavar="|".join(_FORMATS), autocompletion=completer(_FORMATS), help="What to print."
        ),
    ] = "table",
    threshold: Annotated[
        str, typer.Option(metavar="SHARE", help="Changes up to this are never worse.")
    ] = "5%",
    fail_on: Annotated[
        str | None,
        typer.Option(
            metavar="worse",
            autocompletion=completer(_FAIL_ON),
            help="Exit with 7 if something is worse, with 5 if nothing can be compared.",
        ),
    ] = None,
) -> None:
    """Compare results: better, worse, the same or unclear."""
    if len(results) < 2:
        raise typer.BadParameter("Two results or more are compared.")
    if format not in _FORMATS:
        raise typer.BadParameter(f"{format!r} is not one of {', '.join(_FORMATS)}")
    if fail_on not in (None, *_FAIL_ON):
        raise typer.BadParameter(f"--fail-on {fail_on!r} is not one of {', '.join(_FAIL_ON)}")
    try:
        share = percentage(threshold)
    except ValueError as exc:
        raise typer.BadParameter(f"--threshold: {exc}") from exc
    screen = BenchScreen()
    try:
        text, code, reason = runtime.bench_compare(
            results, format, threshold=share, fails_on_worse=fail_on is not None
        )
    except StartError as exc:
        print_error(exc)
        raise typer.Exit(exc.exit_code) from exc
    screen.report(text)
    if reason is not None:
        screen.say(reason)
    raise typer.Exit(code)
