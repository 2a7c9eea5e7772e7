"""One option of `tgi serve`: its flag, variables, form and help; and short ways to write the usual
kinds of option."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

from tgi_cli.runtime.config import parsers
from tgi_cli.runtime.config.options import ServeOptions
from tgi_cli.runtime.config.parsers import Parser

MODEL = "Model"
LIMITS = "Limits per request"
BATCHING = "Batching"
DEVICES = "Devices"
OPERATION = "Network and operation"
COMPATIBILITY = "Accepted for older scripts"
ENVIRONMENT = "Environment only"


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """One option: a field of `ServeOptions` and the ways to fill it."""

    name: str  # the field's
    group: str
    help: str
    parse: Parser = parsers.text
    metavar: str = "TEXT"
    choices: tuple[str, ...] = ()
    short_flag: str | None = None
    default_note: str | None = None  # what an unset option becomes, where it is not a constant
    fallback_variables: tuple[str, ...] = ()  # other programs' names, read last
    no_effect: str | None = None  # why it changes nothing here; told when it is given
    has_variable: bool = True
    is_repeated: bool = False  # the flag, one value each time
    is_secret: bool = False

    @property
    def has_flag(self) -> bool:
        return self.group != ENVIRONMENT

    @property
    def flag(self) -> str:
        return "--" + self.name.replace("_", "-")

    @property
    def is_switch(self) -> bool:
        return self.parse is parsers.switch

    @property
    def variable(self) -> str:
        return self.name.upper()

    @property
    def variables(self) -> tuple[str, ...]:
        """The environment variables, the first that is set winning."""
        if not self.has_variable:
            return ()
        name = self.variable
        found = (name,) if name.startswith("TGI_") else (f"TGI_{name}", name)
        return (*found, *self.fallback_variables)

    @property
    def default(self) -> object:
        return _DEFAULTS[self.name]

    @property
    def default_text(self) -> str | None:
        """The default for people: how one would write it, or in words; None if there is none."""
        if self.default_note is not None or self.default in (None, ()):
            return self.default_note
        return str(self.default).lower() if self.is_switch else str(self.default)


_DEFAULTS = {field.name: field.default for field in dataclasses.fields(ServeOptions)}


def text(
    name: str,
    group: str,
    help: str,
    *,
    metavar: str = "TEXT",
    note: str | None = None,
    is_secret: bool = False,
    no_effect: str | None = None,
) -> Setting:
    return Setting(
        name=name,
        group=group,
        help=help,
        metavar=metavar,
        default_note=note,
        is_secret=is_secret,
        no_effect=no_effect,
    )


def choice(
    name: str,
    group: str,
    values: tuple[str, ...],
    help: str,
    *,
    note: str | None = None,
    no_effect: str | None = None,
) -> Setting:
    return Setting(
        name=name,
        group=group,
        help=help,
        parse=parsers.choice(*values),
        metavar="|".join(values),
        choices=values,
        default_note=note,
        no_effect=no_effect,
    )


def count(
    name: str, group: str, help: str, *, note: str | None = None, no_effect: str | None = None
) -> Setting:
    return Setting(
        name=name,
        group=group,
        help=help,
        parse=parsers.count,
        metavar="N",
        default_note=note,
        no_effect=no_effect,
    )


def switch(name: str, group: str, help: str, *, no_effect: str | None = None) -> Setting:
    return Setting(
        name=name,
        group=group,
        help=help,
        parse=parsers.switch,
        metavar="true|false",
        no_effect=no_effect,
    )
