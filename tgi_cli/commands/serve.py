"""`tgi serve`: serve a model over HTTP until it is told to stop."""

from __future__ import annotations

import os
from typing import Annotated

import typer

from tgi_cli import runtime
from tgi_cli.commands._completion import complete_model
from tgi_cli.commands._console import SilentScreen, StartScreen, print_launcher_error
from tgi_cli.commands._options import VersionOpt, with_settings
from tgi_cli.errors import ArgumentError, StartError
from tgi_cli.runtime.config import env


@with_settings
def serve(
    model: Annotated[
        str | None,
        typer.Argument(
            metavar="MODEL",
            help="The same as --model-id.",
            show_default=False,
            autocompletion=complete_model,
        ),
    ] = None,
    version: VersionOpt = False,
    **flags: object,
) -> None:
    """Serve a model over HTTP.

    With no model it serves a small one to try. Every option has an environment variable, which may
    also be written with the prefix TGI_; the flag wins.
    """
    try:
        flags["model_id"] = _one_model(model, flags.get("model_id"))
        options, warnings = env.merge(flags, os.environ)
        screen = SilentScreen() if options.json_output else StartScreen()
        exit_code = runtime.serve(options, screen, warnings)
    except StartError as exc:
        print_launcher_error(exc)
        exit_code = exc.exit_code
    raise typer.Exit(exit_code)


def _one_model(argument: str | None, option: object) -> object:
    if argument is not None and option is not None and argument != option:
        raise ArgumentError(f"two models are given: {argument} and --model-id {option}")
    return option if argument is None else argument
