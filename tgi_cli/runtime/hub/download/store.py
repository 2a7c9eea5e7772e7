"""Where the files of a repository lie: the hub's standard cache, or a folder of plain files.

A file is in its place whole or not at all: it grows under another name, is checked there, and is
renamed. The cache is shared with every other program that uses the hub's client.
Layout: https://huggingface.co/docs/huggingface_hub/guides/manage-cache.
"""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Protocol

from huggingface_hub import constants

from tgi_cli.runtime.hub.download.digest import has_digest
from tgi_cli.runtime.hub.download.listing import Listing, RemoteFile


class Store(Protocol):
    folder: Path  # what a model is loaded from
    lock_file: Path

    def holds(self, file: RemoteFile) -> bool:
        """Whether the file is here, as far as its name and size say."""

    def path(self, file: RemoteFile) -> Path:
        """Return where the file's bytes are once it is here."""

    def partial(self, file: RemoteFile) -> Path:
        """Return where the file grows, by this run or a later one."""

    def place(self, file: RemoteFile) -> None:
        """Put the partial file, if there is one, into its place."""

    def drop(self, file: RemoteFile) -> None:
        """Remove the file: its bytes are wrong."""

    def finish(self) -> None:
        """Note that everything that was asked for is here."""

    def hub_target(self) -> dict[str, Path]:
        """Return how the hub's client is told of this place."""


class CacheStore:
    """A repository in the hub's cache: bytes by their hash, and links to them for each commit."""

    def __init__(self, cache_dir: Path, listing: Listing) -> None:
        repository = repository_folder(cache_dir, listing.repository)
        self._listing = listing
        self._cache_dir = cache_dir
        self._refs = repository / "refs"
        self._blobs = repository / "blobs"
        self.folder = repository / "snapshots" / listing.commit
        self.lock_file = cache_dir / ".locks" / repository.name / "tgi-download.lock"

    def holds(self, file: RemoteFile) -> bool:
        return _size(self.path(file)) == file.num_bytes

    def path(self, file: RemoteFile) -> Path:
        linked = self.folder / file.name
        return linked if linked.exists() else self._blobs / file.etag

    def partial(self, file: RemoteFile) -> Path:
        # Not the name that older versions of the hub's client append to.
        return self._blobs / f"{file.etag}.tgi.incomplete"

    def place(self, file: RemoteFile) -> None:
        partial, blob, link = self.partial(file), self._blobs / file.etag, self.folder / file.name
        if partial.exists():
            os.replace(partial, blob)
        if link.exists():
            return
        link.parent.mkdir(parents=True, exist_ok=True)
        link.unlink(missing_ok=True)  # one that leads nowhere
        try:
            link.symlink_to(os.path.relpath(blob, link.parent))
        except FileExistsError:
            pass  # another program was faster
        except OSError:  # a file system without links: the bytes themselves, as the hub's client
            os.replace(blob, link)

    def drop(self, file: RemoteFile) -> None:
        link = self.folder / file.name
        link.resolve().unlink(missing_ok=True)
        link.unlink(missing_ok=True)
        (self._blobs / file.etag).unlink(missing_ok=True)

    def finish(self) -> None:
        if self._listing.revision == self._listing.commit:
            return
        ref = self._refs / self._listing.revision
        if ref.exists() and ref.read_text().strip() == self._listing.commit:
            return
        ref.parent.mkdir(parents=True, exist_ok=True)
        new = ref.with_name(f".{ref.name}.{os.getpid()}")
        new.write_text(self._listing.commit)
        os.replace(new, ref)

    def hub_target(self) -> dict[str, Path]:
        return {"cache_dir": self._cache_dir}


class FolderStore:
    """Plain files, for a copy that is carried elsewhere; notes beside them say what they are.

    The notes are those of the hub's client, so that either continues the other's work.
    """

    def __init__(self, folder: Path, listing: Listing) -> None:
        self._listing = listing
        self._notes = folder / ".cache" / "huggingface" / "download"
        self.folder = folder
        self.lock_file = self._notes / "tgi-download.lock"

    def holds(self, file: RemoteFile) -> bool:
        path = self.path(file)
        if _size(path) != file.num_bytes:
            return False
        try:
            _, etag, *_ = self._note(file).read_text().splitlines()
        except (OSError, ValueError):
            return has_digest(path, file.etag)
        return etag == file.etag or has_digest(path, file.etag)

    def path(self, file: RemoteFile) -> Path:
        return self.folder / file.name

    def partial(self, file: RemoteFile) -> Path:
        return self._notes / f"{file.name}.{file.etag}.tgi.incomplete"

    def place(self, file: RemoteFile) -> None:
        partial, path, note = self.partial(file), self.path(file), self._note(file)
        if not partial.exists():
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        note.unlink(missing_ok=True)  # it is about the file that is replaced now
        os.replace(partial, path)
        note.write_text(f"{self._listing.commit}\n{file.etag}\n{time.time()}\n")

    def drop(self, file: RemoteFile) -> None:
        self._note(file).unlink(missing_ok=True)
        self.path(file).unlink(missing_ok=True)

    def finish(self) -> None: ...

    def hub_target(self) -> dict[str, Path]:
        return {"local_dir": self.folder}

    def _note(self, file: RemoteFile) -> Path:
        return self._notes / f"{file.name}.metadata"


def usual_cache(cache_dir: Path | None, repository: str) -> Path:
    """Return the cache that holds the repository, else the usual one.

    Older images kept repositories in the cache's root, newer ones in its folder `hub`: what one of
    them has fetched isn't fetched again.
    """
    usual = Path(cache_dir or constants.HF_HUB_CACHE).expanduser()
    for folder in (usual, usual / "hub", usual.parent):
        if (repository_folder(folder, repository) / "snapshots").is_dir():
            return folder
    return usual


def repository_folder(cache_dir: Path, repository: str) -> Path:
    return cache_dir / f"models--{repository.replace('/', '--')}"


def _size(path: Path) -> int | None:
    try:
        return path.stat().st_size
    except OSError:
        return None
