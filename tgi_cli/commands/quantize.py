"""`tgi quantize`: make a smaller model, and say what it costs in quality."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from tgi_cli import runtime
from tgi_cli.commands._completion import complete_model
from tgi_cli.commands._console import print_error, print_interrupted
from tgi_cli.commands._quantize_screen import quantize_screen
from tgi_cli.commands._table_options import with_table
from tgi_cli.errors import StartError
from tgi_cli.runtime.config.quantize import QUANTIZE_SETTINGS, read_options

_INTERRUPTED = 130
_QUIET = ("warning", "error", "critical")


@with_table(QUANTIZE_SETTINGS)
def quantize(
    model: Annotated[
        str | None,
        typer.Argument(
            metavar="MODEL",
            help="Folder, GGUF file, hub id, or demo.",
            autocompletion=complete_model,
            show_default=False,
        ),
    ] = None,
    output: Annotated[
        str | None,
        typer.Argument(metavar="OUTPUT", help="A new or an empty folder.", show_default=False),
    ] = None,
    **flags: Any,
) -> None:
    """Quantise a model, and say what it costs in quality and gains in size and speed."""
    writes = flags["evaluate"] is None and not flags["dry_run"]
    can_resume = writes and flags["backend"] in (None, "own")
    try:
        options = read_options({"model": model, "output": output, **flags})
        with quantize_screen(
            is_json=options.json_output, is_quiet=options.log_level in _QUIET
        ) as screen:
            exit_code = runtime.quantize_model(options, screen)
    except StartError as exc:
        print_error(exc)
        exit_code = exc.exit_code
    except KeyboardInterrupt:
        print_interrupted(
            "--resume goes on with what is done" if can_resume else "no model was written"
        )
        exit_code = _INTERRUPTED
    raise typer.Exit(exit_code)
