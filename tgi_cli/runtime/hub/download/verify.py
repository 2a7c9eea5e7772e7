"""Whether files that are here are whole: their hashes, and what weights say of themselves."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from pathlib import Path

import msgspec

from tgi_cli.errors import (
    CorruptModelError,
    ModelNotFoundError,
    UnsupportedModelError,
    VerificationError,
)
from tgi_cli.runtime.hub.download.choice import SAFETENSORS_INDEX
from tgi_cli.runtime.hub.download.digest import has_digest
from tgi_cli.runtime.hub.download.hub_client import Stop
from tgi_cli.runtime.hub.download.listing import RemoteFile
from tgi_cli.runtime.hub.download.progress import Progress
from tgi_cli.runtime.hub.download.threads import run_in_threads
from tgi_cli.runtime.hub.gguf_file import GgufFile
from tgi_cli.runtime.hub.safetensors_file import SafetensorsFile, UnknownDtypeError


def wrong_files(
    files: Sequence[RemoteFile],
    path_of: Callable[[RemoteFile], Path],
    progress: Progress,
    num_workers: int,
    stop: Stop,
) -> list[RemoteFile]:
    """Hash what is here; return the files whose bytes aren't those that their etag names."""
    wrong: list[RemoteFile] = []

    def check(file: RemoteFile) -> None:
        progress.begin_file(file.name, file.num_bytes)
        if not has_digest(path_of(file), file.etag):
            wrong.append(file)
        progress.advance(file.name, file.num_bytes)
        progress.end_file(file.name)

    if files:
        progress.begin("verify", len(files), sum(file.num_bytes for file in files))
        try:
            run_in_threads(check, files, num_workers, stop)
        finally:
            progress.end()
    return wrong


def check_weights(folder: Path, names: Iterable[str]) -> None:
    """Check that weights are what their headers and their index say; no tensor is read.

    Raises:
        VerificationError: a header that makes no sense, or an index that names what isn't there.
    """
    files: dict[str, frozenset[str] | None] = {}
    try:
        for name in names:
            if name.endswith(".safetensors"):
                files[name] = _tensors(folder / name)
            elif name.endswith(".gguf"):
                _check_gguf(folder / name)
        if (folder / SAFETENSORS_INDEX).is_file() and files:
            _check_index(folder, files)
    except (CorruptModelError, ModelNotFoundError) as exc:
        raise VerificationError(
            exc.message, hint="Its bytes are those that its owner uploaded: tell them."
        ) from exc


def _tensors(path: Path) -> frozenset[str] | None:
    """Return the names in a file; None if it has types that are newer than this reader."""
    try:
        return frozenset(SafetensorsFile(path).tensors)
    except UnknownDtypeError:
        return None


def _check_gguf(path: Path) -> None:
    with suppress(UnsupportedModelError):  # what this build can't serve is whole all the same
        GgufFile(path)


def _check_index(folder: Path, files: dict[str, frozenset[str] | None]) -> None:
    try:
        index = msgspec.json.decode(
            (folder / SAFETENSORS_INDEX).read_bytes(), type=dict[str, msgspec.Raw]
        )
        weight_map = msgspec.json.decode(index["weight_map"], type=dict[str, str])
    except (OSError, msgspec.MsgspecError, KeyError, RecursionError) as exc:
        raise CorruptModelError(f"{SAFETENSORS_INDEX}: not an index of weights.") from exc
    for tensor, name in weight_map.items():
        if name not in files:
            raise CorruptModelError(f"{SAFETENSORS_INDEX}: lists {name}, which isn't here.")
        tensors = files[name]
        if tensors is not None and tensor not in tensors:
            raise CorruptModelError(f"{name}: tensor {tensor!r} of the index is missing.")
