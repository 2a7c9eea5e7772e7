"""Make a folder of safetensors from weights in another form, in a process of its own.

    convert_folder   `.bin`, `.pt` and `.pth` (pickles), or one GGUF file
    merge_lora       a LoRA adapter and its base model

`job.py` starts the process and hears of it, `__main__.py` is the process, which alone loads torch.
The result appears under its name when it is whole, checked and on the disk: nothing that stops a
conversion leaves something that could be taken for a model. `places.py` says where results lie and
how `serve` finds them.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from tgi_cli.runtime.config.model_config import Dtype
from tgi_cli.runtime.hub.convert.job import run_job
from tgi_cli.runtime.hub.convert.messages import Converted, Job, Kind, Progress

DEFAULT_SHARD_SIZE_BYTES = 5_000_000_000

__all__ = ["DEFAULT_SHARD_SIZE_BYTES", "Converted", "Progress", "convert_folder", "merge_lora"]


def convert_folder(
    source: Path,
    into: Path,
    *,
    kind: Kind,
    dtype: Dtype | None = None,
    shard_size_bytes: int = DEFAULT_SHARD_SIZE_BYTES,
    progress: Callable[[Progress], None] | None = None,
) -> Converted:
    """Convert the weights in `source` to safetensors, and put a whole model folder at `into`.

    `source` is a folder with pickled weights (kind "pickle"), or a `.gguf` file or a folder with
    exactly one (kind "gguf"); it isn't changed. `dtype` None keeps the types as stored, and means
    bfloat16 for GGUF. If `into` holds this very conversion already, nothing is done; another
    folder at `into` is replaced only if a conversion made it. `progress` is called from here.

    Raises:
        ConversionError: it can't be done, and why; nothing is left at `into` or beside it.
        DiskSpaceError: the disk became full; nothing is left either.
    """
    job = Job(
        kind=kind,
        source=str(source.absolute()),
        into=str(into.absolute()),
        dtype=dtype,
        shard_size_bytes=shard_size_bytes,
    )
    return run_job(job, progress)


def merge_lora(
    adapter: Path,
    base: Path,
    into: Path,
    *,
    shard_size_bytes: int = DEFAULT_SHARD_SIZE_BYTES,
    progress: Callable[[Progress], None] | None = None,
) -> Converted:
    """Merge the LoRA adapter in one folder into the base model in another; write to `into`.

    `base` holds safetensors. Weights keep the base's types; sums are made in fp32.

    Raises:
        ConversionError: the adapter isn't plain LoRA, or isn't for this base; nothing is left.
        DiskSpaceError: the disk became full.
    """
    job = Job(
        kind="lora",
        source=str(adapter.absolute()),
        base=str(base.absolute()),
        into=str(into.absolute()),
        shard_size_bytes=shard_size_bytes,
    )
    return run_job(job, progress)
