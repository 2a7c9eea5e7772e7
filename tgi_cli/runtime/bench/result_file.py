"""`result.json`: written whole or not at all; read back whatever later versions have added.

Spec: bench.md section 15.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

import msgspec

from tgi_cli.errors import UsageError
from tgi_cli.runtime.bench.result import SCHEMA, Result

_MAX_BYTES = 1 << 30


class _Head(msgspec.Struct):
    schema: str


def write_result(path: Path, result: Result) -> None:
    """Write the result beside its place, then move it there.

    Raises:
        OSError: it can't be written; what was there before still is.
    """
    beside = path.with_name(f"{path.name}.{os.getpid()}.part")
    try:
        with beside.open("wb") as out:
            out.write(msgspec.json.format(msgspec.json.encode(result), indent=1) + b"\n")
            out.flush()
            os.fsync(out.fileno())
        beside.replace(path)
    except OSError:
        with contextlib.suppress(OSError):
            beside.unlink()
        raise


def read_result(path: Path) -> Result:
    """Read a result; fields that this version doesn't know are passed over.

    Raises:
        UsageError: no such file, no result, or one of another schema.
    """
    try:
        if path.stat().st_size > _MAX_BYTES:
            raise UsageError(f"{path} is too large for a result of tgi bench")
        content = path.read_bytes()
    except OSError as exc:
        raise UsageError(f"{path} can't be read: {exc.strerror}") from exc
    try:
        schema = msgspec.json.decode(content, type=_Head).schema
        if schema != SCHEMA:
            raise UsageError(
                f"{path} has the schema {schema[:40]!r}, and this version reads {SCHEMA!r}."
            )
        return msgspec.json.decode(content, type=Result)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as exc:
        raise UsageError(f"{path} is no result of tgi bench: {exc}") from exc
