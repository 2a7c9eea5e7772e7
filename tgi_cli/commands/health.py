"""`tgi health`: ask a server how it is.

This gives the help and the shells' completions. A probe never comes here: `tgi_cli.__main__` runs
it before anything of the command line is imported.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Annotated

import typer

from tgi_cli import runtime
from tgi_cli.commands._options import completer
from tgi_cli.runtime.config.probe import FLAGS, URL_HELP, Flag


def _with_flags(command: Callable[..., None]) -> Callable[..., None]:
    """Give `command` the options of the table; those that weren't given arrive as None or false."""
    own = [
        parameter
        for parameter in inspect.signature(command, eval_str=True).parameters.values()
        if parameter.kind is not inspect.Parameter.VAR_KEYWORD
    ]
    parameters = [*own, *(_parameter(flag) for flag in FLAGS)]
    command.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    command.__annotations__ = {each.name: each.annotation for each in parameters}
    return command


def _parameter(flag: Flag) -> inspect.Parameter:
    is_switch = flag.metavar is None
    option = typer.Option(
        *flag.names,
        metavar=flag.metavar,
        help=flag.help,
        autocompletion=completer(flag.choices) if flag.choices else None,
        show_default=False,
    )
    return inspect.Parameter(
        flag.field,
        inspect.Parameter.KEYWORD_ONLY,
        default=False if is_switch else None,
        annotation=Annotated[bool if is_switch else str | None, option],
    )


@_with_flags
def health(
    url: Annotated[
        str | None, typer.Argument(metavar="URL", help=URL_HELP, show_default=False)
    ] = None,
    **values: str | bool | None,
) -> None:
    """Ask a server how it is: exit code 0 if it is well, else 1."""
    argv = [] if url is None else [url]
    for flag in FLAGS:
        value = values[flag.field]
        if value is True:
            argv.append(flag.names[0])
        elif isinstance(value, str):
            argv.append(f"{flag.names[0]}={value}")
    raise typer.Exit(runtime.health(argv))
