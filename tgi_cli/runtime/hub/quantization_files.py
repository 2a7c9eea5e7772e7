"""Where a folder says that its weights are quantised: in config.json, or in a file beside it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tgi_cli.runtime.config.fields import Fields
from tgi_cli.runtime.config.quantization import Quantization, parse_quantization
from tgi_cli.runtime.hub.json_files import read_json

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
