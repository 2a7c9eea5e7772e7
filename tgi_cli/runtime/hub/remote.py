"""Fetch a repository for `tgi serve`: the walk of `tgi download`, with its lines in the log."""

from __future__ import annotations

import dataclasses
import logging
from dataclasses import dataclass
from pathlib import Path

from tgi_cli.errors import (
    ConversionError,
    HubUnreachableError,
    ModelNotFoundError,
    UnsupportedModelError,
    UsageError,
)
from tgi_cli.runtime.config.download import DownloadOptions
from tgi_cli.runtime.hub.download.conversion import with_conversion
from tgi_cli.runtime.hub.download.hub_client import Stop
from tgi_cli.runtime.hub.download.obtain import obtain
from tgi_cli.runtime.hub.download.progress import LineProgress
from tgi_cli.runtime.hub.download.result import Obtained

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Fetched:
    folder: Path
    sha: str | None
    pipeline_tag: str | None
    gguf_file: str | None = None  # its name in the folder, if it is what to load


def fetch(
    model_id: str,
    revision: str | None,
    cache_dir: str | None,
    *,
    token: str | None = None,
    has_weights: bool = False,
) -> Fetched:
    """Return the local snapshot of a repository, downloading what is missing.

    `has_weights` says that the weights are somewhere else: only the small files are fetched. When
    the hub can't be reached, a whole copy in the cache will do. Pickled weights are converted, in a
    process of their own.

    Raises:
        ModelNotFoundError: no such repository or revision, no access, or no network.
        VerificationError, DiskSpaceError: the files aren't right, or don't fit.
        UnsupportedModelError: they can't be converted, or several would do.
    """
    options = DownloadOptions(
        model_id=model_id,
        revision=revision,
        cache_dir=None if cache_dir is None else Path(cache_dir),
        has_weights=not has_weights,
        rechecks_cached=False,  # a start shouldn't read every weight twice
        token=token,
    )
    progress, stop = LineProgress(_log.info), Stop()
    try:
        try:
            found = obtain(options, progress, stop)
        except HubUnreachableError as exc:
            found = _cached(options, progress, exc)
        found = with_conversion(found, options, progress, stop)
    except (ConversionError, UsageError) as exc:  # their exit codes are `tgi download`'s
        raise UnsupportedModelError(exc.message, hint=exc.hint) from exc
    return Fetched(found.path, found.commit, found.pipeline_tag, found.gguf_file)


def _cached(options: DownloadOptions, progress: LineProgress, exc: HubUnreachableError) -> Obtained:
    try:
        found = obtain(dataclasses.replace(options, is_offline=True), progress, Stop())
    except ModelNotFoundError:
        raise exc from None
    _log.warning("%s The copy in the cache is used: commit %s", exc.message, found.commit)
    return found
