"""The group of `tgi bench`, whose verb may lack."""

from __future__ import annotations

from typing import Any

from typer.core import TyperGroup

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
