"""The plan for a folder of pickled weights: which names are kept, and into which files they go."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tgi_cli.errors import ConversionError, CorruptModelError, ModelNotFoundError, TgiError
from tgi_cli.runtime.config.hf_config import parse_hf_config
from tgi_cli.runtime.config.model_config import Dtype
from tgi_cli.runtime.config.tensor_names import expected_tensors
from tgi_cli.runtime.hub.convert.dtypes import SAFETENSORS_DTYPES, cast, target_dtype
from tgi_cli.runtime.hub.convert.messages import Job
from tgi_cli.runtime.hub.convert.model_files import copy_small_files
from tgi_cli.runtime.hub.convert.names import pickle_files
from tgi_cli.runtime.hub.convert.pickles import PickleFile
from tgi_cli.runtime.hub.convert.plan import Plan
from tgi_cli.runtime.hub.json_files import read_json
from tgi_cli.runtime.hub.safetensors_writer import TensorSpec, plan_shards

if TYPE_CHECKING:
    from torch import Tensor

_EMBEDDINGS = ("shared.", "embed_tokens.", "embeddings.", "wte.", "embed_in.", "tok_embeddings.")
_HEADS = ("lm_head.", "embed_out.", "cls.", "output.")


class PickleSource:
    """The tensors of several files, one file open at a time."""

    def __init__(self, paths: Iterable[Path], dtype: Dtype | None) -> None:
        self._dtype = dtype
        self._path_of: dict[str, Path] = {}
        self._file: PickleFile | None = None
        self.skipped: list[str] = []
        self.specs: dict[str, list[TensorSpec]] = {}  # by file
        self.tied: list[list[str]] = []  # names of the same elements of one storage
        for path in paths:
            self._add(self._open(path))

    def _add(self, file: PickleFile) -> None:
        groups: dict[object, list[str]] = {}
        specs = self.specs[file.path.name] = []
        for name, tensor in file.tensors.items():
            if name in self._path_of:
                raise ConversionError(
                    f"Tensor {name!r} is in {self._path_of[name].name} and in {file.path.name}: "
                    "these are parts for several devices, or two copies of a model.",
                )
            self._path_of[name] = file.path
            target = target_dtype(tensor.dtype, self._dtype)
            specs.append(TensorSpec(name, SAFETENSORS_DTYPES[target], tuple(tensor.shape)))
            if tensor.numel():
                place = (tensor.data_ptr(), tensor.shape, tensor.stride(), tensor.dtype)
                groups.setdefault(place, []).append(name)
        self.tied += [names for names in groups.values() if len(names) > 1]
        self.skipped += file.skipped

    def _open(self, path: Path) -> PickleFile:
        if self._file is None or self._file.path != path:
            self._file = None  # lets the one before go first
            self._file = PickleFile(path)
        return self._file

    def read(self, name: str) -> Tensor:
        tensor = self._open(self._path_of[name]).tensors[name]
        return cast(name, tensor, target_dtype(tensor.dtype, self._dtype))

    def release(self, name: str) -> None:
        self._open(self._path_of[name]).release(name)


def plan_pickles(job: Job) -> Plan:
    """Raises `ConversionError`: there are no pickled weights, or none that can be taken."""
    folder = Path(job.source)
    outputs = pickle_files(folder)
    if not outputs:
        raise ConversionError(
            f"{folder.name}: there are no .bin, .pt or .pth weights in the folder."
        )
    config = _config(folder)
    if job.dtype is not None and config.get("quantization_config") is not None:
        raise ConversionError(
            f"{folder.name}: the checkpoint is quantised, so its types can't be changed.",
            hint="Leave --dtype out.",
        )
    source = PickleSource([folder / name for name in outputs], job.dtype)
    needed, is_tied = _wishes(config)
    aliases: dict[str, str] = {}
    for names in source.tied:
        aliases |= names_left_out(names, needed, is_tied=is_tied)
    specs = {
        outputs[file]: [spec for spec in group if spec.name not in aliases]
        for file, group in source.specs.items()
    }
    return Plan(
        source=source,
        shards=_shards(specs, job.shard_size_bytes),
        source_files=[folder / name for name in outputs],
        write_small_files=lambda into: copy_small_files(folder, into, dtype=job.dtype),
        aliases=aliases,
        notes=_notes(source.skipped),
    )


def _notes(skipped: Sequence[str]) -> list[str]:
    if not skipped:
        return []
    names = ", ".join(name[:40] for name in skipped[:3])
    dots = ", …" if len(skipped) > 3 else ""
    return [f"Left out, since they are no tensors: {names}{dots}."]


def names_left_out(
    names: Sequence[str], needed: frozenset[str], *, is_tied: bool
) -> dict[str, str]:
    """Return which names of one tensor are left out, each with the one that it is kept under.

    `needed` are the names that the model's architecture reads, if it is known: they all stay, and
    are written twice if they are two. Otherwise one stays if the configuration ties embedding and
    head (or says nothing of it), and the embedding's name comes before others.
    """
    kept = [name for name in names if name in needed]
    if not kept:
        kept = [min(names, key=_rank)] if is_tied or needed else list(names)
    return {name: kept[0] for name in names if name not in kept}


def _rank(name: str) -> tuple[int, int, str]:
    if any(part in name for part in _EMBEDDINGS):
        return 0, len(name), name
    return (2 if any(part in name for part in _HEADS) else 1), len(name), name


def _config(folder: Path) -> Mapping[str, Any]:
    try:
        return read_json(folder / "config.json")
    except (ModelNotFoundError, CorruptModelError):
        return {}  # weights alone may be converted


def _wishes(config: Mapping[str, Any]) -> tuple[frozenset[str], bool]:
    """Return the tensors that the architecture reads, if we know it, and whether it ties two."""
    try:
        return frozenset(expected_tensors(parse_hf_config(config))), True
    except TgiError:  # an architecture that we don't serve may be converted all the same
        return frozenset(), config.get("tie_word_embeddings") is not False


def _shards(
    specs: dict[str, list[TensorSpec]], shard_size_bytes: int
) -> dict[str, list[TensorSpec]]:
    """Return one file for each that was read; or new shards, if one of those were too large."""
    specs = {file: group for file, group in specs.items() if group}
    largest = max(sum(spec.num_bytes for spec in group) for group in specs.values())
    if largest <= shard_size_bytes:
        return specs
    return plan_shards([spec for group in specs.values() for spec in group], shard_size_bytes)
