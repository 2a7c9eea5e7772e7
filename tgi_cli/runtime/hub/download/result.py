"""What a download came to, for a person and for a program."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from tgi_cli.runtime.hub.download.progress import size_text


@dataclass(frozen=True, slots=True)
class FileReport:
    name: str
    num_bytes: int
    is_cached: bool  # it was here before


@dataclass(frozen=True, slots=True)
class Obtained:
    """A model's files, and where they are; with `is_dry_run`, where they would be."""

    model_id: str
    folder: Path
    files: tuple[FileReport, ...]
    commit: str | None = None
    revision: str | None = None  # as it was asked for
    pipeline_tag: str | None = None
    gguf_file: str | None = None
    local_file: Path | None = None  # the model was given as this file
    converted_folder: Path | None = None
    free_bytes: int | None = None
    is_dry_run: bool = False

    @property
    def path(self) -> Path:
        """What to serve."""
        return self.converted_folder or self.local_file or self.folder

    @property
    def num_bytes(self) -> int:
        return sum(file.num_bytes for file in self.files)

    @property
    def num_missing_bytes(self) -> int:
        """What had to be fetched, or would have to."""
        return sum(file.num_bytes for file in self.files if not file.is_cached)

    def lines(self) -> list[str]:
        """Return the answer for a person, without the path."""
        if not self.is_dry_run:
            where = f" at commit {self.commit} ({self.revision})" if self.commit else ""
            fetched = f", {size_text(self.num_missing_bytes)} fetched" if self.commit else ""
            return [
                f"{self.model_id}{where}: {len(self.files)} file(s), "
                f"{size_text(self.num_bytes)}{fetched}"
            ]
        width = max((len(file.name) for file in self.files), default=0)
        lines = [
            f"{file.name:{width}}  {size_text(file.num_bytes):>10}  "
            f"{'here' if file.is_cached else 'to fetch'}"
            for file in self.files
        ]
        free = f", {size_text(self.free_bytes)} free" if self.free_bytes is not None else ""
        what = f"Commit {self.commit}" if self.commit else self.model_id
        lines.append(
            f"{what}: {size_text(self.num_bytes)}, of which "
            f"{size_text(self.num_missing_bytes)} to fetch{free}"
        )
        return lines

    def as_json(self) -> dict[str, object]:
        """Return the answer of `--json`; sizes are bytes."""
        return {
            "model_id": self.model_id,
            "revision": self.revision,
            "commit": self.commit,
            "path": str(self.path),
            "snapshot": str(self.folder),
            "gguf_file": self.gguf_file,
            "dry_run": self.is_dry_run,
            "files": [
                {"name": file.name, "bytes": file.num_bytes, "cached": file.is_cached}
                for file in self.files
            ],
            "total_bytes": self.num_bytes,
            "missing_bytes": self.num_missing_bytes,
            "free_bytes": self.free_bytes,
        }
