"""What a run keeps beside its output, so that it can be killed at any moment and go on.

    OUTPUT.partial/state.json            what determines the bytes: options, source, versions
    OUTPUT.partial/layers/00000.safetensors, 00000.json
                                         a finished layer; its record holds the tensors' hash
    OUTPUT.partial/unchecked/            the checkpoint before it is measured and gets its name

A layer counts once its record is there, which is written after its tensors. Both get their names
when they are whole and on the disk. One process at a time: the folder is locked while it works.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import IO, TYPE_CHECKING

import msgspec

from tgi_cli.errors import ArgumentError
from tgi_cli.runtime.hub.convert.record import SourceFile
from tgi_cli.runtime.hub.safetensors_writer import sync, write_file
from tgi_cli.runtime.quantize.tensor_bytes import read_tensors, write_tensors

if TYPE_CHECKING:
    from torch import Tensor

_STATE, _LOCK, _LAYERS, _UNCHECKED = "state.json", "lock", "layers", "unchecked"


class State(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Everything that the bytes of the result are a function of."""

    options: dict[str, str | int | float | bool | None]
    source: list[SourceFile]
    calibration_sha256: str | None  # of the windows' token ids
    num_threads: int
    device: str  # the hardware's name, which may change the last bit
    versions: dict[str, str]


class ProjectionRecord(msgspec.Struct, frozen=True, kw_only=True):
    name: str
    loss: float | None  # mean over tokens of |Wx - Qx|^2
    relative_loss: float | None  # the same over |Wx|^2
    damping: float | None


class LayerRecord(msgspec.Struct, frozen=True, kw_only=True):
    index: int
    sha256: str
    projections: list[ProjectionRecord]


class WorkFolder:
    """Opened by `open_work`; `close` gives the lock back and leaves the work."""

    def __init__(self, output: Path, folder: Path, lock: IO[bytes]) -> None:
        self._output = output
        self.folder = folder
        self._lock = lock

    @property
    def unchecked(self) -> Path:
        """The folder in which the checkpoint is put together."""
        return self.folder / _UNCHECKED

    def layer_path(self, index: int) -> Path:
        return self.folder / _LAYERS / f"{index:05}.safetensors"

    def record(self, index: int) -> LayerRecord | None:
        """Return what is known of a finished layer; None if it has to be done (again)."""
        path = self.layer_path(index)
        try:
            record = msgspec.json.decode(path.with_suffix(".json").read_bytes(), type=LayerRecord)
            is_whole = record.sha256 == _sha256(path)
        except (OSError, msgspec.MsgspecError):
            return None
        return record if is_whole else None

    def store(
        self, index: int, tensors: Mapping[str, Tensor], projections: list[ProjectionRecord]
    ) -> LayerRecord:
        path = self.layer_path(index)
        path.with_suffix(".json").unlink(missing_ok=True)
        write_tensors(path, tensors)
        record = LayerRecord(index=index, sha256=_sha256(path), projections=projections)
        write_file(path.with_suffix(".json"), msgspec.json.encode(record))
        return record

    def tensors(self, index: int) -> dict[str, Tensor]:
        return read_tensors(self.layer_path(index))

    def new_unchecked(self) -> Path:
        """Return an empty folder for the checkpoint."""
        shutil.rmtree(self.unchecked, ignore_errors=True)
        self.unchecked.mkdir()
        return self.unchecked

    def publish(self) -> None:
        """Give the checkpoint its name, and remove the rest."""
        for path in (*self.unchecked.rglob("*"), self.unchecked):
            sync(path)
        self.unchecked.replace(self._output)
        sync(self._output.parent)
        shutil.rmtree(self.folder)

    def withdraw(self, report_name: str, report: bytes) -> None:
        """Take a checkpoint back that wasn't worth its bound; its report stays, for people."""
        shutil.rmtree(self.unchecked)
        write_file(self.folder / report_name, report)

    def close(self) -> None:
        self._lock.close()


def open_work(output: Path, state: State, *, resumes: bool) -> WorkFolder:
    """Begin in `OUTPUT.partial`, or go on there.

    Raises:
        ArgumentError: there is work of an earlier run and `resumes` is false; the earlier run was
            asked for something else; another process works there, or has just finished.
    """
    folder = partial_folder(output)
    if not _is_ours(folder):
        raise ArgumentError(f"{folder.name} exists and isn't the work of an earlier run.")
    folder.mkdir(parents=True, exist_ok=True)
    lock = (folder / _LOCK).open("wb")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if output.exists() and any(output.iterdir()):
            raise ArgumentError(f"{output.name} was written meanwhile, by another run.")
        _check_state(folder, state, resumes=resumes)
    except BlockingIOError as exc:
        lock.close()
        raise ArgumentError(f"{folder.name}: another process is at work there.") from exc
    except BaseException:
        lock.close()
        raise
    return WorkFolder(output, folder, lock)


def partial_folder(output: Path) -> Path:
    return output.with_name(f"{output.name}.partial")


def read_state(output: Path) -> State | None:
    """Return the state of an earlier run; None if there is none that can be read."""
    return _read(partial_folder(output) / _STATE)


def _read(path: Path) -> State | None:
    try:
        return msgspec.json.decode(path.read_bytes(), type=State)
    except (OSError, msgspec.MsgspecError):
        return None


def _clear(folder: Path) -> None:
    """Remove all but the lock, and the state, which says whose folder it is."""
    for path in folder.iterdir():
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        elif path.name not in (_STATE, _LOCK):
            path.unlink()


def _is_ours(folder: Path) -> bool:
    if folder.is_symlink() or not folder.is_dir():
        return not os.path.lexists(folder)
    return (folder / _STATE).exists() or all(each.name == _LOCK for each in folder.iterdir())


def _check_state(folder: Path, state: State, *, resumes: bool) -> None:
    path = folder / _STATE
    earlier = _read(path)
    if earlier is not None and earlier.options.get("backend") != "own":
        _clear(folder)  # a library leaves nothing to go on with
    elif path.exists() and not resumes:
        can_resume = state.options["backend"] == "own"
        raise ArgumentError(
            f"{folder.name} holds the work of an earlier run.",
            hint="Go on with --resume, or remove the folder." if can_resume else "Remove it.",
        )
    elif path.exists():
        if earlier is None:
            raise ArgumentError(
                f"{folder.name}/{path.name} can't be read: it is damaged, or of another version.",
                hint=f"Remove {folder.name}.",
            )
        for name, before, now in _differences(earlier, state):
            raise ArgumentError(
                f"--resume: {name} was {before} in the run that is gone on with, and is {now} now.",
                hint=f"Give the same options, or remove {folder.name}.",
            )
    (folder / _LAYERS).mkdir(exist_ok=True)
    write_file(path, msgspec.json.format(msgspec.json.encode(state), indent=2))


def _differences(earlier: State, now: State) -> list[tuple[str, object, object]]:
    """Return what differs, with a name that its reader knows."""
    flags = {_flag(name): name for name in earlier.options | now.options}
    pairs: list[tuple[str, object, object]] = [
        (flag, earlier.options.get(name), now.options.get(name)) for flag, name in flags.items()
    ]
    pairs += [
        ("the model's content", _shown(earlier.source), _shown(now.source)),
        ("the calibration text", earlier.calibration_sha256, now.calibration_sha256),
        ("the number of threads", earlier.num_threads, now.num_threads),
        ("the device", earlier.device, now.device),
    ]
    pairs += [
        (f"the version of {name}", earlier.versions.get(name), version)
        for name, version in now.versions.items()
    ]
    return [(name, before, after) for name, before, after in pairs if before != after]


def _flag(name: str) -> str:
    """Return what sets a field of the recipe."""
    return "--sym" if name == "symmetric" else f"--{name.replace('_', '-')}"


def _shown(files: list[SourceFile]) -> str:
    return ", ".join(f"{file.name} {file.sha256[:12]}" for file in files)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
