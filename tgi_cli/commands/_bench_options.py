"""Typer's parameters from the table of `tgi bench`'s options; the group whose verb may lack."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Annotated, Any

import typer
from typer.core import TyperCommand, TyperGroup

from tgi_cli.commands._completion import complete_model
from tgi_cli.commands._options import completer
from tgi_cli.runtime.config.bench import BENCH_SETTINGS, BenchSetting

RUN = "run"  # the verb that may be left out
_HELP = ("-h", "--help")


class BenchGroup(TyperGroup):
    """`tgi bench URL` is `tgi bench run URL`; anything that isn't another verb begins a run."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        is_run = not args or (args[0] not in self.commands and args[0] not in _HELP)
        if is_run and not (ctx.resilient_parsing and not args):
            args = [RUN, *args]
        return super().parse_args(ctx, args)

    def shell_complete(self, ctx: Any, incomplete: str) -> list[Any]:
        if not incomplete.startswith("-"):
            return super().shell_complete(ctx, incomplete)
        return self.commands[RUN].shell_complete(ctx, incomplete)

    def format_options(self, ctx: Any, formatter: Any) -> None:
        self.commands[RUN].format_options(ctx, formatter)
        self.format_commands(ctx, formatter)


class LoadCommand(TyperCommand):
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


def with_bench_settings(command: Callable[..., None]) -> Callable[..., None]:
    """Give `command` one option for each setting; those not given arrive as None."""
    own = [
        parameter
        for parameter in inspect.signature(command, eval_str=True).parameters.values()
        if parameter.kind is not inspect.Parameter.VAR_KEYWORD
    ]
    parameters = [*own, *map(_parameter, BENCH_SETTINGS)]
    command.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    command.__annotations__ = {each.name: each.annotation for each in parameters}
    return command


def _parameter(setting: BenchSetting) -> inspect.Parameter:
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
        elif setting.name == "tokenizer":
            options["autocompletion"] = complete_model
    return inspect.Parameter(
        setting.name,
        inspect.Parameter.KEYWORD_ONLY,
        default=None,
        annotation=Annotated[kind, typer.Option(*names, **options)],
    )


def _reader(setting: BenchSetting) -> Callable[[str], Any]:
    def read(value: str) -> Any:
        try:
            return setting.parse(value)
        except ValueError as exc:
            raise typer.BadParameter(str(exc)) from exc

    return read
