"""`tgi health`: ask a server how it is, and say so by an exit code.

A probe runs every few seconds for months, so nothing here may be slow to import: no Typer, rich,
asyncio, aiohttp, msgspec, dataclasses or http.client, on whose account alone a probe would cost
twice as much. Spec: health-download.md.
"""

from __future__ import annotations

from collections.abc import Sequence


def main(argv: Sequence[str]) -> int:
    """Run `tgi health` with the arguments after that name; return the exit code."""
    from tgi_cli.runtime.config.probe import UsageError, read_options
    from tgi_cli.runtime.health.probe import exit_code, probe
    from tgi_cli.runtime.health.report import show, show_usage

    try:
        options = read_options(argv)
    except UsageError as exc:
        show_usage(exc)
        return exc.exit_code
    if options is None:  # it was the help that was wanted
        return 0
    outcome = probe(options)
    show(outcome, options)
    return exit_code(outcome, options)
