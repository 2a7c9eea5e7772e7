"""The hashes by which the hub names content: SHA-256 of large files, git's SHA-1 of small ones."""

from __future__ import annotations

import hashlib
import os
import re
from pathlib import Path
from typing import Protocol

_CHUNK_BYTES = 1 << 22
_SHA256 = re.compile(r"[0-9a-f]{64}")
_SHA1 = re.compile(r"[0-9a-f]{40}")


class Digest(Protocol):
    def update(self, data: bytes | memoryview, /) -> None: ...

    def hexdigest(self) -> str: ...


def new_digest(etag: str, num_bytes: int) -> Digest:
    """Return the empty hash of the kind of `etag`, for a file of `num_bytes`."""
    if len(etag) == 64:
        return hashlib.sha256()
    digest = hashlib.sha1(usedforsecurity=False)
    digest.update(b"blob %d\0" % num_bytes)  # git hashes a header with the content
    return digest


def has_digest(path: Path, etag: str) -> bool:
    """Whether the file's content is the one that `etag` names."""
    with path.open("rb", buffering=0) as file:
        digest = new_digest(etag, os.fstat(file.fileno()).st_size)
        buffer = bytearray(_CHUNK_BYTES)
        view = memoryview(buffer)
        while num_bytes := file.readinto(buffer):
            digest.update(view[:num_bytes])
    return digest.hexdigest() == etag


def known_digest(path: Path) -> str | None:
    """Return the hash that a file of the hub's cache is stored under; None for other files."""
    blob = path.resolve()
    if blob.parent.name == "blobs" and (_SHA256.fullmatch(blob.name) or _SHA1.fullmatch(blob.name)):
        return blob.name
    return None
