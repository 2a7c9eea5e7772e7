"""`tgi bench`: put load on an endpoint that generates text."""

from __future__ import annotations

import typer

from tgi_cli.commands.bench_mock import mock

_HELP_NAMES = {"help_option_names": ["-h", "--help"]}

bench = typer.Typer(
    name="bench", no_args_is_help=True, context_settings=_HELP_NAMES, rich_markup_mode=None
)
bench.command(context_settings=_HELP_NAMES)(mock)


@bench.callback()
def load() -> None:
    """Put load on an endpoint that generates text."""
