"""The runtime's face: what a command may ask for. Each job is loaded when it is asked for."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tgi_cli.runtime.config.options import ServeOptions
    from tgi_cli.runtime.serving.screen import Screen


def serve(options: ServeOptions, screen: Screen, warnings: tuple[str, ...] = ()) -> int:
    """Serve a model until told to stop; return the exit code. Raises `StartError`."""
    from tgi_cli.runtime.serving.launch import serve as launch

    return launch(options, screen, warnings)
