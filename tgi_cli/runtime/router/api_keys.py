"""The keys that open the inference routes: from `--api-key`, and from a file that may change.

The file holds one key per line; blank lines and lines that begin with `#` are skipped. It is read
again when it changes, so a key is added or withdrawn without a restart. A file that can't be read,
or that holds no key, leaves the keys as they were: a slip of an editor must not lock everyone out,
nor open the server to all. Keys are kept as SHA-256 digests and never logged.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import logging
import os
import stat
from pathlib import Path

from tgi_cli.errors import ArgumentError

POLL_INTERVAL_S = 1.0
_MAX_FILE_BYTES = 1 << 20

_log = logging.getLogger(__name__)
_Version = tuple[int, int, int]


class ApiKeys:
    """Raises `ArgumentError` if there is a file and it holds no key at the start."""

    def __init__(self, key: str | None, file: str | None) -> None:
        self._own = [] if key is None else [_digest(key.encode())]
        self._digests = self._own
        self._file = None if file is None else Path(file)
        self._version: _Version | None = None
        if self._file is not None:
            try:
                self._load(self._file)
            except (OSError, ValueError) as exc:
                raise ArgumentError(f"the file of API keys can't be used: {_reason(exc)}") from exc

    @property
    def is_required(self) -> bool:
        return bool(self._digests)

    def allow(self, authorization: str) -> bool:
        """Return whether the value of an `Authorization` header is `Bearer` and one of the keys.

        Every key is compared, in constant time, so that the answer's delay tells nothing.
        """
        scheme, _, key = authorization.partition(" ")
        given = _digest(key.strip().encode(errors="surrogateescape"))
        is_known = False
        for digest in self._digests:
            is_known |= hmac.compare_digest(digest, given)
        return is_known and scheme.lower() == "bearer"

    async def watch(self) -> None:
        """Read the file again whenever it changes, until cancelled."""
        while self._file is not None:
            await asyncio.sleep(POLL_INTERVAL_S)
            await self.refresh()

    async def refresh(self) -> None:
        """Read the file, in a thread, if it isn't the one that was read last."""
        if self._file is not None:
            await asyncio.to_thread(self._reload, self._file)

    def _reload(self, file: Path) -> None:
        try:
            if _version(os.stat(file)) != self._version:
                self._load(file)
                _log.info("event=api_keys_read keys=%d", len(self._digests))
        except (OSError, ValueError) as exc:
            if self._version is not None:  # say it once, not at every look
                _log.error("event=api_keys_kept reason=%r", _reason(exc))
            self._version = None

    def _load(self, file: Path) -> None:
        with file.open("rb") as opened:
            status = os.fstat(opened.fileno())
            raw = opened.read(_MAX_FILE_BYTES + 1)
        if len(raw) > _MAX_FILE_BYTES:
            raise ValueError("it is too large")
        lines = [line.strip() for line in raw.splitlines()]
        keys = [line for line in lines if line and not line.startswith(b"#")]
        if not keys:
            raise ValueError("it holds no key")
        if status.st_mode & stat.S_IROTH:
            _log.warning("The file of API keys can be read by every user of this machine.")
        self._digests = [*self._own, *map(_digest, keys)]
        self._version = _version(status)


def _digest(key: bytes) -> bytes:
    return hashlib.sha256(key).digest()


def _version(status: os.stat_result) -> _Version:
    return status.st_mtime_ns, status.st_size, status.st_ino


def _reason(exc: Exception) -> str:
    return exc.strerror or "unknown reason" if isinstance(exc, OSError) else str(exc)
