"""What the cache holds of a repository, without a network: all that is needed, or what lacks."""

from __future__ import annotations

import re
from pathlib import Path

from huggingface_hub import constants

from tgi_cli.errors import ModelNotFoundError, NotAModelError, VerificationError
from tgi_cli.runtime.config.download import DownloadOptions
from tgi_cli.runtime.hub.download.choice import (
    PYTORCH_INDEX,
    SAFETENSORS_INDEX,
    choose_files,
    index_shards,
)
from tgi_cli.runtime.hub.download.digest import known_digest
from tgi_cli.runtime.hub.download.hub_client import Stop
from tgi_cli.runtime.hub.download.listing import Listing, RemoteFile
from tgi_cli.runtime.hub.download.progress import Progress
from tgi_cli.runtime.hub.download.reference import ModelReference
from tgi_cli.runtime.hub.download.result import FileReport, Obtained
from tgi_cli.runtime.hub.download.store import CacheStore, repository_folder, usual_cache
from tgi_cli.runtime.hub.download.verify import check_weights, wrong_files

_COMMIT = re.compile(r"[0-9a-f]{40}")
_ONLINE = "Run the same command once with a network, without HF_HUB_OFFLINE and --offline."


def find_cached(
    reference: ModelReference, options: DownloadOptions, progress: Progress, stop: Stop
) -> Obtained:
    """Return the model if all of it is in the cache. No socket is opened.

    Raises:
        ModelNotFoundError: what isn't here, by name.
        VerificationError: it is here, and damaged.
    """
    cache_dir = usual_cache(options.cache_dir, reference.repository)
    revision = reference.revision or constants.DEFAULT_REVISION
    commit = _commit(cache_dir, reference.repository, revision)
    folder = repository_folder(cache_dir, reference.repository) / "snapshots" / commit
    listing = Listing(reference.repository, revision, commit, None, _files(folder))
    store = CacheStore(cache_dir, listing)
    _check_complete(listing, folder, options)
    try:
        choice = choose_files(
            listing, options, reference.quantization, lambda file: store.path(file).read_text()
        )
    except NotAModelError as exc:
        raise ModelNotFoundError(
            f"{reference.repository}: its weights aren't in the cache ({cache_dir}).", hint=_ONLINE
        ) from exc
    if options.check == "sha256" and options.rechecks_cached:
        known = [file for file in choice.files if file.etag]
        wrong = wrong_files(known, store.path, progress, options.num_workers, stop)
        if wrong:
            raise VerificationError(
                f"{reference.repository}: {wrong[0].name} in the cache is damaged.", hint=_ONLINE
            )
    if options.check != "none":
        check_weights(folder, (file.name for file in choice.files))
    return Obtained(
        model_id=reference.repository,
        folder=folder,
        files=tuple(FileReport(file.name, file.num_bytes, True) for file in choice.files),
        commit=commit,
        revision=revision,
        gguf_file=choice.gguf_file,
        is_dry_run=options.is_dry_run,
    )


def _commit(cache_dir: Path, repository: str, revision: str) -> str:
    if _COMMIT.fullmatch(revision):
        commit = revision
    else:
        try:
            commit = (
                (repository_folder(cache_dir, repository) / "refs" / revision).read_text().strip()
            )
        except (OSError, UnicodeDecodeError):
            commit = ""
    folder = repository_folder(cache_dir, repository) / "snapshots" / commit
    if not _COMMIT.fullmatch(commit) or not folder.is_dir():
        raise ModelNotFoundError(
            f"{repository}: no such folder, revision {revision!r} isn't in the cache "
            f"({cache_dir}), and offline the hub can't be reached.",
            hint=_ONLINE,
        )
    return commit


def _files(folder: Path) -> tuple[RemoteFile, ...]:
    return tuple(
        RemoteFile(
            path.relative_to(folder).as_posix(), path.stat().st_size, known_digest(path) or ""
        )
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    )


def _check_complete(listing: Listing, folder: Path, options: DownloadOptions) -> None:
    """Check for what a listing of the hub would tell: that no file that is needed is missing."""
    names = {file.name for file in listing.files}
    missing: list[str] = []
    if not options.includes and options.has_weights:
        index = next((name for name in (SAFETENSORS_INDEX, PYTORCH_INDEX) if name in names), None)
        if index is not None:
            shards = index_shards((folder / index).read_text("utf-8", "replace"), index)
            missing += [name for name in shards if name not in names]
    if "config.json" not in names and not any(name.endswith(".gguf") for name in names):
        missing.append("config.json")
    if missing:
        more = f" (and {len(missing) - 1} more)" if len(missing) > 1 else ""
        raise ModelNotFoundError(
            f"{listing.repository}: {missing[0]}{more} isn't in the cache, and offline the hub "
            "can't be reached.",
            hint=_ONLINE,
        )
