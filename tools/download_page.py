"""The reference page of `tgi download`, from its command."""

from __future__ import annotations

import typer.main

from tgi_cli.app import app

_CODES = (
    ("0", "done: the last line on stdout is the path"),
    ("1", "anything else, such as a folder that can't be written"),
    ("2", "wrong usage, or several GGUF files would do: they are listed"),
    ("3", "no such model, revision or file, or no access to it"),
    ("4", "the network or the hub, after all retries"),
    ("5", "a file isn't what the hub says it is, or what it says of itself"),
    ("6", "the weights can't be converted"),
    ("7", "the disk is too small, or has filled up"),
    ("130", "interrupted; the next run goes on"),
)


def download_page() -> str:
    command = typer.main.get_command(app).commands["download"]  # type: ignore[attr-defined]
    lines = [
        "# tgi download",
        "",
        "<!-- Made by `make docs` from tgi_cli/commands/download.py; edit that. -->",
        "",
        "`tgi download [OPTIONS] MODEL`. How it works: [downloading](../guides/downloading.md).",
        "",
        "| Option | Meaning |",
        "| --- | --- |",
    ]
    for parameter in command.params:
        if parameter.param_type_name == "option" and parameter.help is not None:
            names = ", ".join(f"`{n}`" for n in (*parameter.opts, *parameter.secondary_opts))
            lines.append(f"| {names} | {parameter.help}{_default(parameter.default)} |")
    lines += ["", "| Exit code | When |", "| --- | --- |"]
    lines += [f"| {code} | {meaning} |" for code, meaning in _CODES]
    return "\n".join(lines) + "\n"


def _default(value: object) -> str:
    """Return the default, where the help doesn't say it in words."""
    is_told = isinstance(value, str | int) and not isinstance(value, bool)
    return f" (default: {value})" if is_told else ""
