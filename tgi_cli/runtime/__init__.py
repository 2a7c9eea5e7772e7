"""The runtime's face: what a command may ask for. Each job is loaded when it is asked for."""

from __future__ import annotations

import signal
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from types import FrameType

    from tgi_cli.runtime.config.mock import MockOptions
    from tgi_cli.runtime.config.options import ServeOptions
    from tgi_cli.runtime.serving.screen import Screen


def serve(options: ServeOptions, screen: Screen, warnings: tuple[str, ...] = ()) -> int:
    """Serve a model until told to stop; return the exit code. Raises `StartError`."""
    # Being told to stop is no failure, also while the imports below still run.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, _exit_now)

    from tgi_cli.runtime.serving.launch import serve as launch

    return launch(options, screen, warnings)


def health(argv: Sequence[str]) -> int:
    """Run `tgi health` with these arguments; return the exit code."""
    from tgi_cli.runtime.health import main

    return main(argv)


def bench_mock(options: MockOptions, listening: Callable[[str], None]) -> int:
    """Serve text without a model until told to stop; return the exit code. Raises `StartError`."""
    from tgi_cli.runtime.bench.mock.server import serve_mock

    return serve_mock(options, listening)


def schema() -> str:
    """Return the OpenAPI document of the HTTP interface, in JSON. Needs no model."""
    import msgspec

    from tgi_cli.runtime.router.openapi import openapi_json

    return msgspec.json.format(openapi_json(), indent=2).decode()


def _exit_now(_number: int, _frame: FrameType | None) -> None:
    sys.exit(0)
