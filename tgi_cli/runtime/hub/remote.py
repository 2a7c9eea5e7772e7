"""Fetch a repository for `tgi serve`: the walk of `tgi download`, with its lines in the log."""

from __future__ import annotations

import dataclasses
import logging
from dataclasses import dataclass
from pathlib import Path

from tgi_cli.errors import HubUnreachableError, ModelNotFoundError
from tgi_cli.runtime.config.download import DownloadOptions
from tgi_cli.runtime.hub.download.hub_client import Stop
from tgi_cli.runtime.hub.download.obtain import obtain
from tgi_cli.runtime.hub.download.progress import LineProgress
from tgi_cli.runtime.hub.download.result import Obtained

<<<<<<< HEAD
from tgi_cli.errors import ModelNotFoundError

_SMALL_FILES = [
    "config.json",
    "generation_config.json",
    "quantize_config.json",
    "quant_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "chat_template.json",
    "chat_template.jinja",
    "additional_chat_templates/*.jinja",
    "processor_config.json",
]
_WEIGHTS = ["*.safetensors", "*.safetensors.index.json"]
_REPOSITORY = re.compile(r"[\w.-]{1,96}(/[\w.-]{1,96})?")
=======
_log = logging.getLogger(__name__)
>>>>>>> 29a3c42 (hub: one walk from a model's name to checked files, resumable and verified; tgi download)


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
    the hub can't be reached, a whole copy in the cache will do.

    Raises:
        ModelNotFoundError: no such repository or revision, no access, or no network.
        VerificationError, DiskSpaceError: the files aren't right, or don't fit.
    """
    options = DownloadOptions(
        model_id=model_id,
        revision=revision,
        cache_dir=None if cache_dir is None else Path(cache_dir),
        has_weights=not has_weights,
        rechecks_cached=False,  # a start shouldn't read every weight twice
        token=token,
    )
    try:
        found = obtain(options, LineProgress(_log.info), Stop())
    except HubUnreachableError as exc:
        found = _cached(options, exc)
    return Fetched(found.folder, found.commit, found.pipeline_tag, found.gguf_file)


def _cached(options: DownloadOptions, exc: HubUnreachableError) -> Obtained:
    offline = dataclasses.replace(options, is_offline=True)
    try:
        found = obtain(offline, LineProgress(_log.info), Stop())
    except ModelNotFoundError:
        raise exc from None
    _log.warning("%s The copy in the cache is used: commit %s", exc.message, found.commit)
    return found
