"""A model that is on this disk under its own path: nothing to fetch, only to check."""

from __future__ import annotations

from pathlib import Path

from tgi_cli.errors import NotAModelError, UsageError, VerificationError
from tgi_cli.runtime.config.download import DownloadOptions
from tgi_cli.runtime.hub.download.digest import known_digest
from tgi_cli.runtime.hub.download.hub_client import Stop
from tgi_cli.runtime.hub.download.listing import RemoteFile
from tgi_cli.runtime.hub.download.progress import Progress
from tgi_cli.runtime.hub.download.result import FileReport, Obtained
from tgi_cli.runtime.hub.download.verify import check_weights, wrong_files

_WEIGHTS = (".safetensors", ".gguf", ".bin", ".pt", ".pth")


def check_local(path: Path, options: DownloadOptions, progress: Progress, stop: Stop) -> Obtained:
    """Return the model in a folder, or in one GGUF file, when what it says of itself holds.

    Raises:
        NotAModelError: there are no weights.
        VerificationError: they are damaged.
        UsageError: an option that is about a repository.
    """
    if options.revision is not None or options.local_dir is not None:
        raise UsageError("--revision and --local-dir are about the hub; this model is a local path")
    folder = path if path.is_dir() else path.parent
    paths = sorted(path.iterdir()) if path.is_dir() else [path]
    files = [
        RemoteFile(each.name, each.stat().st_size, known_digest(each) or "")
        for each in paths
        if each.is_file()
    ]
    if not any(file.name.endswith(_WEIGHTS) for file in files):
        raise NotAModelError(f"{path}: no weights are there ({', '.join(_WEIGHTS)}).")
    if options.check == "sha256":  # only files of the hub's cache have a known hash
        known = [file for file in files if file.etag]
        workers = options.num_workers
        wrong = wrong_files(known, lambda file: folder / file.name, progress, workers, stop)
        if wrong:
            raise VerificationError(
                f"{path}: {wrong[0].name} is damaged.", hint="Download the model again by its name."
            )
    if options.check != "none":
        check_weights(folder, (file.name for file in files))
    return Obtained(
        model_id=str(path),
        folder=folder.absolute(),
        local_file=path.absolute() if path.is_file() else None,
        files=tuple(FileReport(file.name, file.num_bytes, True) for file in files),
        gguf_file=path.name if path.suffix == ".gguf" else None,
        is_dry_run=options.is_dry_run,
    )
