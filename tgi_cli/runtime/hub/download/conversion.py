"""Safetensors out of what was downloaded, where it came in another form."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from huggingface_hub import constants

from tgi_cli.errors import ConversionError, ModelNotFoundError
from tgi_cli.runtime.config.download import DownloadOptions
from tgi_cli.runtime.hub import convert
from tgi_cli.runtime.hub.convert.messages import Kind, Stage
from tgi_cli.runtime.hub.convert.names import pickle_files
from tgi_cli.runtime.hub.convert.places import ADAPTER_CONFIG, converted_folder
from tgi_cli.runtime.hub.demo import DEMO_ID
from tgi_cli.runtime.hub.download.disk import check_space
from tgi_cli.runtime.hub.download.hub_client import Stop
from tgi_cli.runtime.hub.download.local import check_local
from tgi_cli.runtime.hub.download.obtain import obtain
from tgi_cli.runtime.hub.download.progress import Phase, Progress
from tgi_cli.runtime.hub.download.result import Obtained
from tgi_cli.runtime.hub.download.space import GGUF_GROWTH, wants_gguf_converted
from tgi_cli.runtime.hub.json_files import read_json
from tgi_cli.runtime.hub.model_path import local_path

_PHASES: dict[Stage, Phase] = {"hash": "verify", "write": "convert", "check": "verify"}
_WEIGHTS = (".bin", ".pt", ".pth", ".gguf")


def with_conversion(
    obtained: Obtained, options: DownloadOptions, progress: Progress, stop: Stop
) -> Obtained:
    """Return the model with the folder that its conversion made, if it needs one.

    Raises:
        ConversionError: it can't be converted.
        DiskSpaceError: the result won't fit.
        StartError: the base model of an adapter can't be had.
    """
    if obtained.is_dry_run:
        return obtained
    folder = obtained.folder
    if options.merge_lora and (folder / ADAPTER_CONFIG).is_file():
        return _merged(obtained, options, progress, stop)
    if obtained.gguf_file is not None:
        if not wants_gguf_converted(options):
            return obtained
        progress.say(
            "GGUF weights grow when they become safetensors (Q4 to bfloat16: about 3.5 times), and "
            "the precision that they lost doesn't come back"
        )
        return _made(obtained, "gguf", folder / obtained.gguf_file, options, progress)
    if options.convert == "never" or any(folder.glob("*.safetensors")):
        return obtained
    if not pickle_files(folder):
        return obtained
    return _made(obtained, "pickle", folder, options, progress)


def _made(
    obtained: Obtained, kind: Kind, source: Path, options: DownloadOptions, progress: Progress
) -> Obtained:
    into = _place(source, options)
    if not options.ignores_disk_space and not into.exists():
        growth = GGUF_GROWTH if kind == "gguf" else 1.0
        num_bytes = sum(f.num_bytes for f in obtained.files if f.name.endswith(_WEIGHTS))
        what = f"{obtained.model_id}, converted"
        check_space(what, into, int(num_bytes * growth), options.min_free_bytes)
    stages = _Stages(progress)
    try:
        made = convert.convert_folder(
            source,
            into,
            kind=kind,
            dtype=options.dtype,
            shard_size_bytes=options.shard_bytes,
            progress=stages.advance,
        )
    finally:
        stages.end()
    return _with_result(obtained, made, progress)


def _place(source: Path, options: DownloadOptions) -> Path:
    """Return where a result belongs: the demo model lies in an installed package, where nothing is
    to be written.
    """
    if options.model_id != DEMO_ID:
        return converted_folder(source)
    home = options.cache_dir or Path(constants.HF_HOME)
    return home.expanduser() / "tgi" / converted_folder(source).name


def _merged(
    obtained: Obtained, options: DownloadOptions, progress: Progress, stop: Stop
) -> Obtained:
    """Merge an adapter into its base model, which is fetched if it isn't here.

    The base of an adapter from the hub is a name on the hub and nothing else: the repository's
    author wrote it. A folder of the user's own may name another.
    """
    base_id = read_json(obtained.folder / ADAPTER_CONFIG).get("base_model_name_or_path")
    if not isinstance(base_id, str) or not base_id:
        raise ConversionError(f"{obtained.model_id}: {ADAPTER_CONFIG} names no base model.")
    progress.say(f"{obtained.model_id} is an adapter; its base model is {base_id[:100]!r}")
    wanted = dataclasses.replace(
        options,
        model_id=base_id,
        revision=None,
        includes=(),
        excludes=(),
        extension=None,
        gguf_file=None,
        local_dir=None,
        merge_lora=False,
    )
    try:
        path = local_path(base_id) if obtained.commit is None else None
        if path is not None:
            base = check_local(path, wanted, progress, stop)
        else:
            base = obtain(wanted, progress, stop)
        base = with_conversion(base, wanted, progress, stop)
    except ModelNotFoundError as exc:
        raise type(exc)(f"The base model: {exc.message}", hint=exc.hint) from exc
    into = converted_folder(obtained.folder)
    stages = _Stages(progress)
    try:
        made = convert.merge_lora(
            obtained.folder,
            base.path,
            into,
            shard_size_bytes=options.shard_bytes,
            progress=stages.advance,
        )
    finally:
        stages.end()
    return _with_result(obtained, made, progress)


def _with_result(obtained: Obtained, made: convert.Converted, progress: Progress) -> Obtained:
    for note in made.notes:
        progress.say(note)
    return dataclasses.replace(obtained, converted_folder=Path(made.folder))


class _Stages:
    """Tells the stages of a conversion as phases."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._stage: Stage | None = None
        self._done = 0

    def advance(self, told: convert.Progress) -> None:
        if told.stage != self._stage:
            self.end()
            self._stage, self._done = told.stage, 0
            self._progress.begin(_PHASES[told.stage], 1, told.total_bytes)
        self._progress.advance(told.name, told.done_bytes - self._done)
        self._done = told.done_bytes

    def end(self) -> None:
        if self._stage is not None:
            self._progress.end()
            self._stage = None
