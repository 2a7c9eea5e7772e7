"""Put a checkpoint together: finished layers, what is kept of the source, and the small files.

Written a tensor at a time.
"""

from __future__ import annotations

from pathlib import Path

import msgspec

from tgi_cli.errors import CorruptModelError
from tgi_cli.runtime.config.quantize import QuantizeRecipe
from tgi_cli.runtime.config.tensor_names import EMBEDDING
from tgi_cli.runtime.hub.convert.plan import bytes_of
from tgi_cli.runtime.hub.json_files import read_json
from tgi_cli.runtime.hub.safetensors_file import SafetensorsFile
from tgi_cli.runtime.hub.safetensors_writer import (
    CheckpointWriter,
    TensorSpec,
    plan_shards,
    write_file,
)
from tgi_cli.runtime.quantize.layouts import quantization_config
from tgi_cli.runtime.quantize.small_files import write_small_files
from tgi_cli.runtime.quantize.source import Source, layer_prefix
from tgi_cli.runtime.quantize.tensor_bytes import spec_of
from tgi_cli.runtime.quantize.work_folder import WorkFolder

_METADATA = {"format": "pt"}


def write_checkpoint(source: Source, recipe: QuantizeRecipe, work: WorkFolder) -> Path:
    """Write everything but the report; return the folder.

    Raises:
        CorruptModelError: a layer's file isn't what was stored.
        OSError: as the disk does.
    """
    folder = work.new_unchecked()
    shards = plan_shards(_specs(source, work), recipe.shard_size)
    with CheckpointWriter(folder, shards, _METADATA) as writer:
        for name in source.kept_names:
            writer.write(name, bytes_of(source.stored(name)))
        for index in range(source.config.num_layers):
            if work.record(index) is None:
                raise CorruptModelError(
                    f"The file of layer {index} isn't what was stored there.",
                    hint="The disk may be at fault; --resume does the layer again.",
                )
            file = SafetensorsFile(work.layer_path(index))
            for name in file.tensors:
                writer.write(f"{layer_prefix(index)}{name}", file.read(name))
                file.release(name)
    write_small_files(source.located, folder)
    described = quantization_config(recipe)
    if recipe.format == "gptq":
        write_file(folder / "quantize_config.json", _json(described))
    config = {**read_json(folder / "config.json"), "quantization_config": described}
    write_file(folder / "config.json", _json(config))
    return folder


def _specs(source: Source, work: WorkFolder) -> list[TensorSpec]:
    """Return all tensors in the order of the model: embedding, layers, norm and head."""
    kept = [spec_of(name, source.stored(name)) for name in source.kept_names]
    first = [spec for spec in kept if spec.name == EMBEDDING]
    layers = [
        TensorSpec(f"{layer_prefix(index)}{info.name}", info.dtype, info.shape)
        for index in range(source.config.num_layers)
        for info in SafetensorsFile(work.layer_path(index)).tensors.values()
    ]
    return [*first, *layers, *(spec for spec in kept if spec.name != EMBEDDING)]


def _json(value: object) -> bytes:
    return msgspec.json.format(msgspec.json.encode(value), indent=2) + b"\n"
