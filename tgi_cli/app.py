"""The command `tgi`. Nothing heavy is imported here: `tgi --help` answers at once."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from tgi_cli import __version__
from tgi_cli.commands._options import ServeCommand
from tgi_cli.commands.serve import serve

_HELP_NAMES = {"help_option_names": ["-h", "--help"]}

app = typer.Typer(
    name="tgi",
    help="Serve large language models over TGI's and OpenAI's HTTP protocols.",
    no_args_is_help=True,
    context_settings=_HELP_NAMES,
    pretty_exceptions_show_locals=False,  # they would show prompts and keys
    rich_markup_mode=None,  # plain help: rich would take more time than everything else together
)
app.command(cls=ServeCommand, context_settings=_HELP_NAMES)(serve)


def _print_version(asked: bool) -> None:
    if asked:
        typer.echo(f"tgi {__version__}")
        raise typer.Exit


@app.callback()
def root(
    version: Annotated[
        bool,
        typer.Option(
            "--version", "-V", callback=_print_version, is_eager=True, help="Show the version."
        ),
    ] = False,
) -> None:
    """Serve large language models over TGI's and OpenAI's HTTP protocols."""


def main() -> None:
    """Run `tgi` with the arguments of this process."""
    app(prog_name="tgi")


def launcher() -> None:
    """Run `text-generation-launcher`: `tgi serve` under the name that TGI's scripts call."""
    arguments = sys.argv[1:]
    if arguments in (["-V"], ["--version"]):
        app(arguments, prog_name="text-generation-launcher")
    app(["serve", *arguments], prog_name="text-generation-launcher")
