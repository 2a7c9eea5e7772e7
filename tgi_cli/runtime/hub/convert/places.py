"""Where converted weights lie, and how they are found again.

A conversion never writes into the hub's snapshot, whose files others share and verify. Of a
snapshot `models--org--name/snapshots/COMMIT` it lies in `models--org--name/converted/COMMIT`, so
that it goes when the repository is removed from the cache; of another folder, beside it.
"""

from __future__ import annotations

from pathlib import Path

from tgi_cli.runtime.hub.convert.record import read_record, sources_are_unchanged

ADAPTER_CONFIG = "adapter_config.json"  # what says that a folder holds a LoRA adapter


def converted_folder(source: Path) -> Path:
    """Return where the conversion of a folder, or of a `.gguf` file, belongs."""
    source = source.absolute()
    is_file = source.suffix == ".gguf" and not source.is_dir()
    snapshot = _snapshot_of(source)
    if snapshot is not None:
        name = f"{snapshot.name}-{source.stem}" if is_file else snapshot.name
        return snapshot.parent.parent / "converted" / name
    return source.with_name(f"{source.stem if is_file else source.name}-safetensors")


def find_converted(folder: Path) -> Path | None:
    """Return the folder with the converted weights of `folder`, if they are still what they were.

    A commit never changes. The files of an ordinary folder may have been replaced since; then their
    sizes differ, or they are newer than the conversion.
    """
    converted = converted_folder(folder)
    record = read_record(converted)
    if record is None or record.kind == "gguf":
        return None
    is_commit = _snapshot_of(folder.absolute()) is not None
    if is_commit or sources_are_unchanged(record, converted, folder):
        return converted
    return None


def _snapshot_of(path: Path) -> Path | None:
    """Return the hub's snapshot folder that `path` is or lies in."""
    for folder in (path, *path.parents):
        if folder.parent.name == "snapshots" and folder.parent.parent.name.startswith("models--"):
            return folder
    return None
