"""Make Typer's parameters from the table of settings, so that there is one table."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Sequence
from typing import Annotated, Any

import typer
from typer.core import TyperCommand

from tgi_cli import __version__
from tgi_cli.commands._completion import complete_model
from tgi_cli.runtime.config.settings import SETTINGS, Setting


def _print_version(asked: bool) -> None:
    if asked:
        typer.echo(f"tgi {__version__}")
        raise typer.Exit


VersionOpt = Annotated[
    bool,
    typer.Option(
        "--version", "-V", callback=_print_version, is_eager=True, help="Show the version."
    ),
]
Command = Callable[..., None]


def with_settings(command: Command) -> Command:
    """Give `command` one option for each setting that has a flag; unset ones arrive as None.

    `command` takes its arguments as one mapping, `**flags`. An argument that it declares itself
    comes first.
    """
    own = [
        parameter
        for parameter in inspect.signature(command, eval_str=True).parameters.values()
        if parameter.kind is not inspect.Parameter.VAR_KEYWORD
    ]
    made = [_parameter(setting) for setting in SETTINGS if setting.has_flag]
    parameters = [*own, *made]
    command.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    command.__annotations__ = {each.name: each.annotation for each in parameters}
    return command


def _parameter(setting: Setting) -> inspect.Parameter:
    names = (setting.flag, setting.short_flag) if setting.short_flag else (setting.flag,)
    help = f"{setting.help} {_notes(setting)}"
    option: object
    kind: object
    if setting.is_repeated:
        option = typer.Option(
            *names, metavar=setting.metavar, help=help, rich_help_panel=setting.group
        )
        kind = list[str] | None
    else:
        option = typer.Option(
            *names,
            parser=setting.parse,
            metavar=setting.metavar,
            help=help,
            rich_help_panel=setting.group,
            autocompletion=_completion_of(setting),
        )
        kind = Any | None
    return inspect.Parameter(
        setting.name,
        inspect.Parameter.KEYWORD_ONLY,
        default=None,
        annotation=Annotated[kind, option],
    )


def _notes(setting: Setting) -> str:
    notes = []
    if setting.has_variable:
        notes.append(f"env: {setting.variable}")
    if setting.default_text is not None:
        notes.append(f"default: {setting.default_text}")
    return f"({'; '.join(notes)})" if notes else ""


def _completion_of(setting: Setting) -> Callable[[str], list[str]] | None:
    if setting.name == "model_id":
        return complete_model
    values = ("true", "false") if setting.is_switch else setting.choices
    return completer(values) if values else None


def completer(values: Sequence[str]) -> Callable[[str], list[str]]:
    def complete(incomplete: str) -> list[str]:
        return [value for value in values if value.startswith(incomplete)]

    return complete


_SWITCHES = {
    name: setting.flag
    for setting in SETTINGS
    if setting.is_switch
    for name in (setting.flag, setting.short_flag)
    if name is not None
}


class ServeCommand(TyperCommand):
    """A command with headings in its help, whose switches may stand alone.

    `--json-output` is `--json-output=true`.
    """

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        return super().parse_args(ctx, list(join_switches(args)))

    def format_options(self, ctx: Any, formatter: Any) -> None:
        sections: dict[str, list[tuple[str, str]]] = {}
        for parameter in self.get_params(ctx):
            record = parameter.get_help_record(ctx)
            if record is not None:
                is_argument = parameter.param_type_name == "argument"
                usual = "Arguments" if is_argument else "Options"
                heading = getattr(parameter, "rich_help_panel", None) or usual
                sections.setdefault(heading, []).append(record)
        for heading, records in sections.items():
            with formatter.section(heading):
                formatter.write_dl(records)


def join_switches(args: Iterable[str]) -> Iterable[str]:
    """Give each bare switch its value: the word after it if that is true or false, else true."""
    words = list(args)
    while words:
        word = words.pop(0)
        if word == "--":
            yield word
            yield from words
            return
        if word not in _SWITCHES:
            yield word
        elif words and words[0].lower() in ("true", "false"):
            yield f"{_SWITCHES[word]}={words.pop(0)}"
        else:
            yield f"{_SWITCHES[word]}=true"
