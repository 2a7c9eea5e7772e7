"""What a repository holds at one commit, as the hub lists it. Every name and number is checked."""

from __future__ import annotations

import re
from dataclasses import dataclass

from huggingface_hub import ModelInfo, constants

from tgi_cli.errors import VerificationError
from tgi_cli.runtime.hub.download.hub_client import Hub
from tgi_cli.runtime.hub.download.reference import ModelReference

_COMMIT = re.compile(r"[0-9a-f]{40}")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_MAX_FILE_BYTES = 1 << 50


@dataclass(frozen=True, slots=True)
class RemoteFile:
    """A file of a repository; `etag` is a large file's SHA-256, a small one's SHA-1 in git."""

    name: str  # from the repository's root, with slashes
    num_bytes: int
    etag: str


@dataclass(frozen=True, slots=True)
class Listing:
    repository: str
    revision: str  # as it was asked for
    commit: str
    pipeline_tag: str | None
    files: tuple[RemoteFile, ...]


def resolve(reference: ModelReference, hub: Hub) -> Listing:
    """Ask the hub once: which commit a revision is now, and what is in it.

    Raises:
        ModelNotFoundError: no such repository or revision, no access, or no network.
        VerificationError: the answer makes no sense.
    """
    revision = reference.revision or constants.DEFAULT_REVISION

    def request() -> ModelInfo:
        return hub.api().model_info(
            reference.repository,
            revision=revision,
            files_metadata=True,
            timeout=constants.HF_HUB_ETAG_TIMEOUT,
        )

    try:
        info = hub.ask(request, reference.repository, revision=revision)
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as exc:
        raise VerificationError(
            f"{reference.repository}: the hub's answer can't be read.", hint=_BAD_HUB
        ) from exc
    commit = info.sha
    if not isinstance(commit, str) or not _COMMIT.fullmatch(commit):
        raise VerificationError(
            f"{reference.repository}: the hub names no commit for {revision!r}.", hint=_BAD_HUB
        )
    files = tuple(_files(reference.repository, info))
    tag = info.pipeline_tag if isinstance(info.pipeline_tag, str) else None
    return Listing(reference.repository, revision, commit, tag, files)


_BAD_HUB = "If HF_ENDPOINT is set, check that it leads to a server that speaks the hub's protocol."


def _files(repository: str, info: ModelInfo) -> list[RemoteFile]:
    files: dict[str, RemoteFile] = {}
    for entry in info.siblings or ():
        large = entry.lfs
        num_bytes = large.size if large is not None else entry.size
        etag = large.sha256 if large is not None else entry.blob_id
        form = _SHA256 if large is not None else _COMMIT
        name = entry.rfilename
        if (
            not is_plain_name(name)
            or not isinstance(num_bytes, int)
            or not 0 <= num_bytes <= _MAX_FILE_BYTES
            or not isinstance(etag, str)
            or not form.fullmatch(etag)
        ):
            raise VerificationError(
                f"{repository}: the hub's listing has no usable name, size and hash for "
                f"{str(name)[:100]!r}.",
                hint=_BAD_HUB,
            )
        if name in files:
            raise VerificationError(
                f"{repository}: the hub lists {name[:100]!r} twice.", hint=_BAD_HUB
            )
        files[name] = RemoteFile(name, num_bytes, etag)
    return list(files.values())


def is_plain_name(name: object) -> bool:
    """Whether a file's name stays inside the folder that it is written to."""
    if not isinstance(name, str) or not name.isprintable() or "\\" in name or len(name) > 500:
        return False
    parts = name.split("/")
    return all(part not in ("", ".", "..") and len(part.encode()) <= 255 for part in parts)
