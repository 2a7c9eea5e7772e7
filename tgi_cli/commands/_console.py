"""The only place that prints: the start table, the address and one line for each mistake.

rich is imported when something is printed, so that `tgi --help` doesn't wait for it.
"""

from __future__ import annotations

import sys

from tgi_cli.errors import ArgumentError, StartError
from tgi_cli.runtime.config.resolved import ResolvedConfig

_FIRST_REQUEST = '{"inputs": "What is deep learning?", "parameters": {"max_new_tokens": 20}}'


def print_error(error: StartError) -> None:
    """Print a mistake on one line, and the fix below it."""
    _print_mistake(error.message, error.hint)


def print_launcher_error(error: StartError) -> None:
    """Print a mistake as `print_error` does, but a wrong option as TGI's launcher words it."""
    is_launchers = isinstance(error, ArgumentError)
    text = f'ArgumentValidation("{error.message}")' if is_launchers else error.message
    _print_mistake(text, error.hint)


def _print_mistake(text: str, hint: str | None) -> None:
    print(f"Error: {text}", file=sys.stderr)
    if hint is not None:
        print(f"Hint: {hint}", file=sys.stderr)


def print_interrupted(what_now: str) -> None:
    """Say that Ctrl-C was heard, and what can be done now."""
    print(f"Interrupted: {what_now}.", file=sys.stderr)


def print_document(text: str) -> None:
    """Print what was asked for, as it is, for another program to read."""
    print(text)


def print_listening(url: str) -> None:
    """Say on one line that a server is ready, for a person or a script that waits for it."""
    print(f"Listening on {url}", flush=True)


class BenchScreen:
    """The report goes to stdout, where it can be piped; everything else to stderr."""

    @property
    def is_terminal(self) -> bool:
        return sys.stdout.isatty()

    def report(self, text: str) -> None:
        sys.stdout.write(text if text.endswith("\n") else f"{text}\n")
        sys.stdout.flush()

    def say(self, text: str) -> None:
        print(text, file=sys.stderr, flush=True)


class StartScreen:
    """What a person sees on stdout while a server starts; a machine reads the log instead."""

    def decided(self, config: ResolvedConfig) -> None:
        """Show what the server will be, and why."""
        from rich import box
        from rich.console import Console
        from rich.table import Table
        from rich.text import Text

        table = Table(box=box.SIMPLE_HEAD, title="tgi serve", title_justify="left", pad_edge=False)
        table.add_column("setting", style="cyan", no_wrap=True)
        table.add_column("value", overflow="fold")
        table.add_column("why", style="dim")
        for decision in config.decisions:  # Text, because a model's name is not markup
            table.add_row(decision.name, Text(decision.value), Text(decision.reason))
        Console(highlight=False).print(table)

    def listening(self, url: str, *, needs_key: bool) -> None:
        """Show where the server is and a first request to try."""
        key = " -H 'Authorization: Bearer <your API key>'" if needs_key else ""
        print(f"Serving on {url}")
        print("Try:")
        print(f"  curl {url}/generate -H 'Content-Type: application/json'{key} \\")
        print(f"    -d '{_FIRST_REQUEST}'", flush=True)


class SilentScreen(StartScreen):
    """Shows nothing: for `--json-output`, where every line is an object."""

    def decided(self, config: ResolvedConfig) -> None: ...

    def listening(self, url: str, *, needs_key: bool) -> None: ...
