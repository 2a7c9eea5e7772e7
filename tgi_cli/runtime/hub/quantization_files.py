"""Where a folder says that its weights are quantised: in config.json, or in a file beside it.

Some things only the weights' own directories say.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import prod
from pathlib import Path
from typing import Any

import msgspec

from tgi_cli.runtime.config.fields import Fields
from tgi_cli.runtime.config.model_config import ModelConfig
from tgi_cli.runtime.config.quantization import Fp4, Nf4, Quantization, parse_quantization
from tgi_cli.runtime.config.quantization.bitsandbytes import block_size_of
from tgi_cli.runtime.config.quantization.format import HEAD
from tgi_cli.runtime.config.tensor_names import projections
from tgi_cli.runtime.hub.json_files import read_json
from tgi_cli.runtime.hub.weights_reader import WeightsReader

_SECTIONS = ("quantization_config", "compression_config")  # the second: older llmcompressor
_OWN_FILES = {"quantize_config.json": "gptq", "quant_config.json": "awq"}  # older writers


def read_quantization(folder: Path, raw_config: Mapping[str, Any]) -> Quantization | None:
    """Return the format of the folder's weights, or None if they are plain floats.

    Raises:
        UnsupportedModelError, CorruptModelError: as `parse_quantization`.
    """
    for section in _SECTIONS:
        if Fields(raw_config, "config.json").section(section) is not None:
            return parse_quantization(raw_config[section], f"config.json: {section}")
    for name, method in _OWN_FILES.items():
        if (folder / name).exists():
            return parse_quantization(read_json(folder / name), name, method)
    return None


def as_stored(
    quantization: Quantization, config: ModelConfig, reader: WeightsReader
) -> Quantization:
    """Add what the files alone say: whether the head is quantised, how large blocks are."""
    has_codes = not reader.parts_of(HEAD) <= {"weight", "bias"}
    quantization = msgspec.structs.replace(quantization, converts_head=has_codes)
    if not isinstance(quantization, Nf4 | Fp4):
        return quantization
    sizes = projections(config)
    for module in quantization.converted_of(sizes):
        found = reader.find(f"{module}.weight.absmax")
        num_blocks = prod(found[1].shape) if found is not None else 0
        size = block_size_of(prod(sizes[module]), num_blocks)
        if size is not None:  # else the check of the tensors refuses it by name
            return msgspec.structs.replace(quantization, block_size=size)
    return quantization
