"""`tgi bench`: put load on an endpoint that generates text."""

from __future__ import annotations

import os
import sys
from typing import Annotated, Any

import typer

from tgi_cli import runtime
from tgi_cli.commands._bench_options import RUN, BenchGroup
from tgi_cli.commands._console import BenchScreen, print_error
from tgi_cli.commands._table_options import GroupedCommand, with_table
from tgi_cli.commands.bench_compare import compare
from tgi_cli.commands.bench_mock import mock
from tgi_cli.commands.bench_results import report
from tgi_cli.errors import StartError
from tgi_cli.runtime.config.bench import BENCH_SETTINGS, read_options

_HELP_NAMES = {"help_option_names": ["-h", "--help"]}
_URL = next(setting for setting in BENCH_SETTINGS if setting.name == "url")


@with_table(BENCH_SETTINGS)
def run(
    endpoint: Annotated[
        str | None,
        typer.Argument(metavar="[URL]", help=f"{_URL.help} (default: {_URL.default_text})"),
    ] = None,
    **flags: Any,
) -> None:
    """Put load on an endpoint that generates text; say with honest numbers how it does."""
    if endpoint is not None:
        if flags["url"] is not None:
            raise typer.BadParameter("The URL is given twice.")
        try:
            flags["url"] = _URL.parse(endpoint)
        except ValueError as exc:
            raise typer.BadParameter(str(exc)) from exc
    try:
        options = read_options(flags, os.environ)
        raise typer.Exit(runtime.run_bench(options, sys.argv[1:], BenchScreen()))
    except StartError as exc:
        print_error(exc)
        raise typer.Exit(exc.exit_code) from exc


def calibrate(
    duration: Annotated[
        float, typer.Option(min=1, max=600, help="Seconds for each number of workers.")
    ] = 5.0,
    max_workers: Annotated[
        int | None, typer.Option(min=1, help="Most workers that are tried; default: the cores.")
    ] = None,
) -> None:
    """Find what a client process manages on this machine, for `--workers auto`."""
    try:
        raise typer.Exit(runtime.bench_calibrate(duration, max_workers, BenchScreen()))
    except StartError as exc:
        print_error(exc)
        raise typer.Exit(exc.exit_code) from exc


bench = typer.Typer(
    name="bench", cls=BenchGroup, context_settings=_HELP_NAMES, rich_markup_mode=None
)
bench.command(RUN, cls=GroupedCommand, context_settings=_HELP_NAMES)(run)
bench.command(context_settings=_HELP_NAMES)(mock)
bench.command(context_settings=_HELP_NAMES)(calibrate)
bench.command(context_settings=_HELP_NAMES)(compare)
bench.command(context_settings=_HELP_NAMES)(report)


@bench.callback()
def group() -> None:
    """Put load on an endpoint that generates text.

    `tgi bench URL` runs it; the other words are further commands.
    """
