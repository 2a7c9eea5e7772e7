"""A file that is still arriving: what the hub's client writes into, and what counts and hashes it.

Whatever is on the disk is a prefix of the file: the next run goes on at its end.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from tgi_cli.errors import DiskSpaceError, StartError
from tgi_cli.runtime.hub.download.digest import Digest, new_digest
from tgi_cli.runtime.hub.download.hub_client import Stopped
from tgi_cli.runtime.hub.download.listing import RemoteFile

_READ_BYTES = 1 << 22
_FULL = frozenset({errno.ENOSPC, errno.EDQUOT})


class TooLongError(Exception):
    """More bytes arrived than the file has."""


class PartialFile:
    """The part of a binary file's interface that the hub's client uses.

    Raises:
        DiskSpaceError: the disk is full; what was written stays.
        TooLongError: more arrives than the file has.
        Stopped: the run is over.
    """

    def __init__(
        self,
        path: Path,
        file: RemoteFile,
        *,
        is_hashed: bool,
        advance: Callable[[int], None],
        is_stopped: Callable[[], bool],
    ) -> None:
        self._path = path
        self._wanted = file
        self._advance = advance
        self._is_stopped = is_stopped
        self._digest: Digest | None = None
        if path.exists() and path.stat().st_size > file.num_bytes:
            path.unlink()  # of no use, whatever it was
        with _told(file.name, path):
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file = path.open("r+b" if path.exists() else "w+b", buffering=0)
        if is_hashed:
            self._digest = self._hash_of_all()
        self.num_bytes = self._file.seek(0, os.SEEK_END)
        self.num_received = 0  # by this object, whether they were kept or not

    def __enter__(self) -> PartialFile:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def write(self, data: bytes) -> int:
        if self._is_stopped():
            raise Stopped
        if self.num_bytes + len(data) > self._wanted.num_bytes:
            raise TooLongError
        rest = memoryview(data)
        with _told(self._wanted.name, self._path):
            while rest:  # a disk that is nearly full takes a part
                written = self._put(rest)
                if self._digest is not None:
                    self._digest.update(rest[:written])
                self.num_bytes += written
                self.num_received += written
                rest = rest[written:]
                self._advance(written)
        return len(data)

    def _put(self, data: memoryview) -> int:
        return self._file.write(data)

    def tell(self) -> int:
        return self.num_bytes

    def seek(self, position: int) -> int:
        """Go back, to what `truncate` will cut."""
        return self._file.seek(position)

    def truncate(self) -> int:
        """Drop what is behind the position: the server begins anew."""
        self._file.truncate(position := self._file.tell())
        if self._digest is not None:
            self._digest = self._hash_of_all()
        self._file.seek(position)
        self._advance(position - self.num_bytes)
        self.num_bytes = position
        return position

    def empty(self) -> None:
        """Begin anew: what is here is of no use."""
        self.seek(0)
        self.truncate()

    def has_digest(self) -> bool:
        """Whether the bytes are the file's, as far as it was asked to hash them."""
        return self._digest is None or self._digest.hexdigest() == self._wanted.etag

    def _hash_of_all(self) -> Digest:
        digest = new_digest(self._wanted.etag, self._wanted.num_bytes)
        self._file.seek(0)
        while data := self._file.read(_READ_BYTES):
            digest.update(data)
        return digest


@contextmanager
def _told(name: str, path: Path) -> Iterator[None]:
    """Turn the disk's errors into ours, with the file and the fix."""
    try:
        yield
    except OSError as exc:
        raise disk_error(exc, name, path.parent) from exc


def disk_error(exc: OSError, name: str, folder: Path) -> StartError:
    """Return the error to show for a failure to write below `folder`."""
    if exc.errno in _FULL:
        what = "the quota is used up" if exc.errno == errno.EDQUOT else "the disk is full"
        return DiskSpaceError(
            f"{name}: {what} ({folder}).",
            hint="Make room and run the same command again: it goes on where it stopped.",
        )
    return StartError(
        f"{name}: can't be written into {folder} ({exc.strerror or type(exc).__name__}).",
        hint="Check the folder's owner and rights, or choose another with --cache-dir.",
    )
