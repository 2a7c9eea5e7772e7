"""`conversion.json`: what a folder of safetensors was made of, by what, and how.

A folder with one is whole: it is written last, and the folder gets its name after that. It holds
neither times nor paths, so that the same conversion gives the same bytes.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

import msgspec

from tgi_cli.runtime.config.model_config import Dtype
from tgi_cli.runtime.hub.convert.messages import Converted, Job, Kind
from tgi_cli.runtime.hub.safetensors_writer import write_file

RECORD_NAME = "conversion.json"
_CHUNK_BYTES = 1 << 22


class SourceFile(msgspec.Struct, frozen=True, kw_only=True):
    name: str
    num_bytes: int
    sha256: str


class Record(msgspec.Struct, frozen=True, kw_only=True):
    kind: Kind
    dtype: Dtype | None
    shard_size_bytes: int
    sources: tuple[SourceFile, ...]  # in the source's folder
    base_sources: tuple[SourceFile, ...] = ()  # lora: in the base's folder
    versions: dict[str, str]  # of what made it, by package
    result: Converted


def read_record(folder: Path) -> Record | None:
    """Return the record of a converted folder; None if `folder` isn't one."""
    try:
        return msgspec.json.decode((folder / RECORD_NAME).read_bytes(), type=Record)
    except (OSError, msgspec.MsgspecError):
        return None


def write_record(folder: Path, record: Record) -> None:
    write_file(folder / RECORD_NAME, msgspec.json.format(msgspec.json.encode(record), indent=2))


def is_current(record: Record, folder: Path, job: Job) -> bool:
    """Whether `folder`, whose record this is, is what `job` would make now."""
    source = Path(job.source)
    is_other_file = not source.is_dir() and [file.name for file in record.sources] != [source.name]
    return (
        not is_other_file
        and (record.kind, record.dtype) == (job.kind, job.dtype)
        and record.shard_size_bytes == job.shard_size_bytes
        and sources_are_unchanged(record, folder, source if source.is_dir() else source.parent)
        and (job.base is None or _are_older(record.base_sources, folder, Path(job.base)))
    )


def sources_are_unchanged(record: Record, folder: Path, source: Path) -> bool:
    """Whether the files of `source` have their sizes still and are older than the conversion.

    Hashing them again would take as long as a conversion.
    """
    return _are_older(record.sources, folder, source)


def source_file(path: Path, hashed: Callable[[int], None]) -> SourceFile:
    """Hash a file; `hashed` gets the bytes of each part that is done."""
    digest = hashlib.sha256()
    num_bytes = 0
    with path.open("rb") as file:
        while part := file.read(_CHUNK_BYTES):
            digest.update(part)
            num_bytes += len(part)
            hashed(len(part))
    return SourceFile(name=path.name, num_bytes=num_bytes, sha256=digest.hexdigest())


def _are_older(sources: tuple[SourceFile, ...], folder: Path, source: Path) -> bool:
    try:
        made_at = (folder / RECORD_NAME).stat().st_mtime_ns
        found = [(source / file.name).stat() for file in sources]
    except OSError:
        return False
    return all(
        now.st_size == file.num_bytes and now.st_mtime_ns <= made_at
        for now, file in zip(found, sources, strict=True)
    )
