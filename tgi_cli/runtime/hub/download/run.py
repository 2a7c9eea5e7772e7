"""`tgi download`: get a model, say what came of it, end with the code of its outcome."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Protocol

from tgi_cli.errors import (
    ConversionError,
    CorruptModelError,
    DiskSpaceError,
    HubUnreachableError,
    ModelNotFoundError,
    StartError,
    UnsupportedModelError,
    UsageError,
    VerificationError,
)
from tgi_cli.runtime.config.download import DownloadOptions
from tgi_cli.runtime.config.resolved import LogConfig
from tgi_cli.runtime.hub.demo import DEMO_ID, demo_path
from tgi_cli.runtime.hub.download.conversion import with_conversion
from tgi_cli.runtime.hub.download.hub_client import Stop
from tgi_cli.runtime.hub.download.local import check_local
from tgi_cli.runtime.hub.download.obtain import obtain
from tgi_cli.runtime.hub.download.progress import LineProgress, Progress, SilentProgress
from tgi_cli.runtime.hub.download.result import Obtained
from tgi_cli.runtime.hub.model_path import local_path
from tgi_cli.runtime.logs import configure_logging

_log = logging.getLogger(__name__)

# The first that fits; what isn't listed is 1.
_EXIT_CODES: tuple[tuple[type[StartError], int], ...] = (
    (UsageError, 2),
    (HubUnreachableError, 4),
    (ModelNotFoundError, 3),
    (VerificationError, 5),
    (CorruptModelError, 5),
    (ConversionError, 6),
    (UnsupportedModelError, 6),
    (DiskSpaceError, 7),
)
_INTERRUPTED = 130


class Screen(Protocol):
    """What the command shows."""

    is_quiet: bool

    @property
    def bars(self) -> Progress | None:
        """Where progress is drawn; None: lines of the log do."""

    def result(self, lines: Sequence[str], path: str, facts: Mapping[str, object]) -> None:
        """Show the outcome, as a person or as a program reads it."""

    def failed(self, error: StartError) -> None: ...

    def interrupted(self) -> None: ...


def run_download(options: DownloadOptions, log: LogConfig, screen: Screen) -> int:
    """Download a model; return the exit code."""
    configure_logging(log)
    stop = Stop()
    progress = SilentProgress() if screen.is_quiet else screen.bars or LineProgress(_log.info)
    try:
        obtained = _get(options, progress, stop)
        screen.result(obtained.lines(), str(obtained.path), obtained.as_json())
    except StartError as exc:
        screen.failed(exc)
        return exit_code(exc)
    except KeyboardInterrupt:
        screen.interrupted()
        return _INTERRUPTED
    finally:
        stop.set()
    return 0


def exit_code(error: StartError) -> int:
    """Return the code of spec/health-download.md for an error."""
    return next((code for kind, code in _EXIT_CODES if isinstance(error, kind)), 1)


def _get(options: DownloadOptions, progress: Progress, stop: Stop) -> Obtained:
    path = demo_path() if options.model_id == DEMO_ID else local_path(options.model_id)
    if path is not None:
        obtained = check_local(path, options, progress, stop)
    else:
        obtained = obtain(options, progress, stop)
    return with_conversion(obtained, options, progress, stop)
