"""Typer's parameters from a table of settings whose switches have two flags."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from typing import Annotated, Any

import typer
from typer.core import TyperCommand

from tgi_cli.commands._completion import complete_model
from tgi_cli.commands._options import completer
from tgi_cli.runtime.config.bench import BenchSetting
from tgi_cli.runtime.config.quantize import QuantizeSetting

TableSetting = BenchSetting | QuantizeSetting
Command = Callable[..., None]

_MODELS = ("tokenizer", "evaluate", "against")  # options whose value is a model


class GroupedCommand(TyperCommand):
    """A command whose help has a heading for each group of options."""

    def format_options(self, ctx: Any, formatter: Any) -> None:
        sections: dict[str, list[tuple[str, str]]] = {}
        for parameter in self.get_params(ctx):
            record = parameter.get_help_record(ctx)
            if record is not None:
                heading = getattr(parameter, "rich_help_panel", None) or "Options"
                sections.setdefault(heading, []).append(record)
        for heading, records in sections.items():
            with formatter.section(heading):
                formatter.write_dl(records)


def with_table(settings: Sequence[TableSetting]) -> Callable[[Command], Command]:
    """Return a decorator that gives a command one option for each setting.

    The command takes them as one mapping, `**flags`; those not given arrive as None.
    """

    def decorate(command: Command) -> Command:
        own = [
            parameter
            for parameter in inspect.signature(command, eval_str=True).parameters.values()
            if parameter.kind is not inspect.Parameter.VAR_KEYWORD
        ]
        parameters = [*own, *map(_parameter, settings)]
        command.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        command.__annotations__ = {each.name: each.annotation for each in parameters}
        return command

    return decorate


def _parameter(setting: TableSetting) -> inspect.Parameter:
    names = [setting.switch_flags if setting.is_switch else setting.flag]
    if setting.short_flag is not None:
        names.append(setting.short_flag)
    note = setting.default_text
    options: dict[str, Any] = {
        "help": setting.help if note is None else f"{setting.help} (default: {note})",
        "rich_help_panel": setting.group,
        "show_default": False,
    }
    kind: object
    if setting.is_switch:
        kind = bool | None
    elif setting.is_repeated:
        kind, options["metavar"] = list[str] | None, setting.metavar
    else:
        kind, options["metavar"] = Any | None, setting.metavar
        options["parser"] = _reader(setting)
        if setting.choices:
            options["autocompletion"] = completer(setting.choices)
        elif setting.name in _MODELS:
            options["autocompletion"] = complete_model
    return inspect.Parameter(
        setting.name,
        inspect.Parameter.KEYWORD_ONLY,
        default=None,
        annotation=Annotated[kind, typer.Option(*names, **options)],
    )


def _reader(setting: TableSetting) -> Callable[[str], Any]:
    def read(value: str) -> Any:
        try:
            return setting.parse(value)
        except ValueError as exc:
            raise typer.BadParameter(str(exc)) from exc

    return read
