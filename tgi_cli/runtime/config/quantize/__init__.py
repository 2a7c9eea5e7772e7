"""The options of `tgi quantize`: what can be asked, the table of flags, and what is decided."""

from __future__ import annotations

from tgi_cli.runtime.config.quantize.decide import QuantizeRecipe, decide, read_options
from tgi_cli.runtime.config.quantize.options import (
    CheckpointFormat,
    QuantizeBackend,
    QuantizeMethod,
    QuantizeOptions,
)
from tgi_cli.runtime.config.quantize.table import QUANTIZE_SETTINGS, QuantizeSetting

__all__ = [
    "QUANTIZE_SETTINGS",
    "CheckpointFormat",
    "QuantizeBackend",
    "QuantizeMethod",
    "QuantizeOptions",
    "QuantizeRecipe",
    "QuantizeSetting",
    "decide",
    "read_options",
]
