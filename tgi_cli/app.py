"""The command `tgi`. Nothing heavy is imported here: `tgi --help` answers at once."""

from __future__ import annotations

import os
import sys

import typer

from tgi_cli.commands._completion import mend_zsh_script
from tgi_cli.commands._old_names import router_arguments, server_arguments
from tgi_cli.commands._options import ServeCommand, VersionOpt
from tgi_cli.commands._table_options import GroupedCommand
from tgi_cli.commands.bench import bench
from tgi_cli.commands.download import download
from tgi_cli.commands.health import health
from tgi_cli.commands.print_schema import print_schema
from tgi_cli.commands.quantize import quantize
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
app.command(context_settings=_HELP_NAMES)(download)
app.command(context_settings=_HELP_NAMES)(health)
app.add_typer(bench)
app.command(cls=GroupedCommand, context_settings=_HELP_NAMES)(quantize)
app.command(context_settings=_HELP_NAMES)(print_schema)


mend_zsh_script()


@app.callback()
def root(version: VersionOpt = False) -> None:
    """Serve large language models over TGI's and OpenAI's HTTP protocols."""


def main() -> None:
    """Run `tgi` with the arguments of this process."""
    app(prog_name="tgi")


def launcher() -> None:
    """Run `text-generation-launcher`: `tgi serve` under the name that TGI's scripts call."""
    app(["serve", *sys.argv[1:]], prog_name="text-generation-launcher")


def router() -> None:
    """Run `text-generation-router`: `tgi serve`, or `tgi print-schema`."""
    app(router_arguments(sys.argv[1:], os.environ), prog_name="text-generation-router")


def server() -> None:
    """Run `text-generation-server`: its jobs are `tgi serve`, `tgi download` and `tgi quantize`."""
    app(server_arguments(sys.argv[1:]), prog_name="text-generation-server")
