"""What a checkpoint has besides weights: configuration, tokenizer, chat template, licence."""

from __future__ import annotations

from pathlib import Path

from tgi_cli.runtime.hub.convert.from_gguf import plan_gguf
from tgi_cli.runtime.hub.convert.messages import Job
from tgi_cli.runtime.hub.convert.model_files import copy_small_files
from tgi_cli.runtime.hub.locate import LocatedModel


def write_small_files(located: LocatedModel, into: Path) -> None:
    """Copy them from a folder, or make them of what a GGUF file says.

    Raises:
        ConversionError: a GGUF file that a folder can't describe.
    """
    weights = located.weights
    first = Path(weights.files[0])
    if weights.kind == "safetensors":
        copy_small_files(first.parent, into)
        return
    job = Job(
        kind="gguf",
        source=str(first),
        into=str(into),
        dtype=located.config.checkpoint_dtype,
        shard_size_bytes=weights.num_bytes,
    )
    plan_gguf(job).write_small_files(into)
