"""One option of `tgi bench`, and how its values are written."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from dataclasses import dataclass

from tgi_cli.runtime.config import parsers
from tgi_cli.runtime.config.bench.options import BenchOptions
from tgi_cli.runtime.config.settings.setting import Setting

ENDPOINT = "Endpoint"
LOAD = "Load, one of these"
LOAD_DETAILS = "How the load is put on"
LENGTH = "How long"
INPUTS = "What is sent"
LIMITS = "What counts as well"
CLIENT = "The client"
OUTPUT = "What is shown and kept"


def written(value: object) -> str:
    """Return a single value as its flag takes it."""
    if isinstance(value, float):
        return f"{value:.15g}"
    if isinstance(value, dict):
        return json.dumps(value, ensure_ascii=False)
    return str(value)


def written_time(value: object) -> str:
    return f"{value:.12g}s"


def written_share(value: object) -> str:
    assert isinstance(value, float), value
    return f"{value * 100:.12g}%"


def written_list(value: object) -> str:
    assert isinstance(value, tuple), value
    return ",".join(map(written, value))


@dataclass(frozen=True, slots=True, kw_only=True)
class BenchSetting(Setting):
    """A field of `BenchOptions`. A switch has a flag to turn it on and one to turn it off."""

    has_variable: bool = False
    write: Callable[[object], str] = written  # of one value, where the flag is repeated
    is_kept: bool = True  # in run.toml

    @property
    def default(self) -> object:
        return _DEFAULTS.get(self.name)

    @property
    def default_text(self) -> str | None:
        if self.is_switch:
            return "on" if self.default else None
        if self.default_note is not None or self.default in (None, ()):
            return self.default_note
        return self.write(self.default)

    @property
    def switch_flags(self) -> str:
        """Both flags, as Typer takes them."""
        return f"{self.flag}/--no-{self.flag[2:]}"


_DEFAULTS = {field.name: field.default for field in dataclasses.fields(BenchOptions)}


def switch(name: str, group: str, help: str, *, is_kept: bool = True) -> BenchSetting:
    return BenchSetting(name=name, group=group, help=help, parse=parsers.switch, is_kept=is_kept)


def choice(name: str, group: str, values: tuple[str, ...], help: str) -> BenchSetting:
    return BenchSetting(
        name=name,
        group=group,
        help=help,
        parse=parsers.choice(*values),
        metavar="|".join(values),
        choices=values,
    )


def path(name: str, group: str, help: str, *, note: str | None = None) -> BenchSetting:
    return BenchSetting(name=name, group=group, help=help, metavar="PATH", default_note=note)


def time(
    name: str,
    group: str,
    help: str,
    parse: parsers.Parser,
    *,
    note: str | None = None,
) -> BenchSetting:
    return BenchSetting(
        name=name,
        group=group,
        help=help,
        parse=parse,
        metavar="TIME",
        write=written_time,
        default_note=note,
    )
