"""What a conversion will write, known before it writes, and the writing: the same for every kind.

Peak memory is one tensor: it is read, written, and let go. Afterwards every tensor is read again
from both sides and compared to the last byte.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor

from tgi_cli import __version__
from tgi_cli.errors import ConversionError
from tgi_cli.runtime.hub.convert.messages import Converted, Job, Progress, Stage
from tgi_cli.runtime.hub.convert.record import Record, SourceFile, source_file, write_record
from tgi_cli.runtime.hub.safetensors_file import SafetensorsFile
from tgi_cli.runtime.hub.safetensors_writer import CheckpointWriter, TensorSpec, sync

Report = Callable[[Progress], None]


class TensorSource(Protocol):
    """Tensors by name, in the type in which they will be written."""

    def read(self, name: str) -> Tensor:
        """Return one tensor, the same bits at each call. It is valid until `release`."""

    def release(self, name: str) -> None:
        """Give back the memory that reading `name` took."""


@dataclass(frozen=True, slots=True)
class Plan:
    source: TensorSource
    shards: Mapping[str, Sequence[TensorSpec]]  # by file; tensors in the order of reading
    source_files: Sequence[Path]
    write_small_files: Callable[[Path], None]  # config, tokenizer and the like, into the folder
    base_files: Sequence[Path] = ()  # lora
    aliases: Mapping[str, str] = field(default_factory=dict)  # see `Converted`
    notes: Sequence[str] = ()


def execute(plan: Plan, job: Job, report: Report) -> Converted:
    """Fill the empty folder `job.into`.

    Raises:
        ConversionError: what was written isn't what was read.
        OSError: as the disk does.
    """
    into = Path(job.into)
    sources, base_sources = _hash_sources(plan, report)
    specs = [spec for group in plan.shards.values() for spec in group]
    total = sum(spec.num_bytes for spec in specs)
    # As the safetensors library notes tied tensors: the name left out, and the one kept.
    metadata = {"format": "pt", **plan.aliases}
    with CheckpointWriter(into, plan.shards, metadata) as writer:
        progress = _Counter(report, "write", total)
        for spec in specs:
            writer.write(spec.name, bytes_of(plan.source.read(spec.name)))
            plan.source.release(spec.name)
            progress.add(spec.name, spec.num_bytes)
    _check(plan, into, _Counter(report, "check", total))
    plan.write_small_files(into)
    for path in into.rglob("*"):
        sync(path)
    result = Converted(
        folder="",
        files=tuple(plan.shards),
        num_tensors=len(specs),
        num_bytes=total,
        source_bytes=sum(file.num_bytes for file in (*sources, *base_sources)),
        aliases=dict(plan.aliases),
        notes=tuple(plan.notes),
    )
    record = Record(
        kind=job.kind,
        dtype=job.dtype,
        shard_size_bytes=job.shard_size_bytes,
        sources=sources,
        base_sources=base_sources,
        versions={"tgi-cli": __version__, "torch": str(torch.__version__)},
        result=result,
    )
    write_record(into, record)
    return result


def bytes_of(tensor: Tensor) -> memoryview:
    """Return a tensor's elements in order, as safetensors wants them; copies only if it must."""
    if tensor.numel() == 0:
        return memoryview(b"")
    flat = tensor.detach().contiguous().reshape(-1).view(torch.uint8)
    return flat.numpy().data


class _Counter:
    """Reports a stage's bytes as they are done."""

    def __init__(self, report: Report, stage: Stage, total_bytes: int) -> None:
        self._report = report
        self._stage = stage
        self._total_bytes = total_bytes
        self._done_bytes = 0

    def add(self, name: str, num_bytes: int) -> None:
        self._done_bytes += num_bytes
        self._report(
            Progress(
                stage=self._stage,
                name=name,
                done_bytes=self._done_bytes,
                total_bytes=self._total_bytes,
            )
        )


def _hash_sources(
    plan: Plan, report: Report
) -> tuple[tuple[SourceFile, ...], tuple[SourceFile, ...]]:
    paths = [*plan.source_files, *plan.base_files]
    progress = _Counter(report, "hash", sum(path.stat().st_size for path in paths))

    def hashed(path: Path) -> SourceFile:
        return source_file(path, lambda num_bytes: progress.add(path.name, num_bytes))

    return tuple(map(hashed, plan.source_files)), tuple(map(hashed, plan.base_files))


def _check(plan: Plan, into: Path, progress: _Counter) -> None:
    for name, specs in plan.shards.items():
        written = SafetensorsFile(into / name)
        for spec in specs:
            if written.read(spec.name) != bytes_of(plan.source.read(spec.name)):
                raise ConversionError(
                    f"{name}: tensor {spec.name!r} isn't what was written there.",
                    hint="The disk or the memory of this machine may be at fault.",
                )
            written.release(spec.name)
            plan.source.release(spec.name)
            progress.add(spec.name, spec.num_bytes)
