"""Quantised checkpoints, by an allow-list: each format's own parser reads the keys that it knows.

A format is one struct, with the tensors that a projection [N, K] lies in and the bytes that it
takes; a model's projections may be in more than one (`formats_of`). A new format is a file here,
one in `runtime/layers/quantization`, and a line in both tables.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from tgi_cli.errors import UnsupportedModelError
from tgi_cli.runtime.config.fields import Fields
from tgi_cli.runtime.config.quantization.awq import Awq, parse_awq
from tgi_cli.runtime.config.quantization.bitsandbytes import (
    BitsAndBytesInt8,
    Fp4,
    Nf4,
    parse_bitsandbytes,
)
from tgi_cli.runtime.config.quantization.compressed_tensors import (
    CompressedByModule,
    IntQuantized,
    PackQuantized,
    parse_compressed_tensors,
)
from tgi_cli.runtime.config.quantization.fp8 import FloatQuantized, Fp8, parse_fp8
from tgi_cli.runtime.config.quantization.gptq import Gptq, GptqByModule, Marlin, parse_gptq
from tgi_cli.runtime.config.quantization.module_names import ModuleNames
from tgi_cli.runtime.config.quantization.on_load import OnLoad

__all__ = [
    "Awq",
    "BitsAndBytesInt8",
    "CompressedByModule",
    "FloatQuantized",
    "Fp4",
    "Fp8",
    "Gptq",
    "GptqByModule",
    "IntQuantized",
    "Marlin",
    "Nf4",
    "OnLoad",
    "PackQuantized",
    "Quantization",
    "StoredFormat",
    "formats_of",
    "parse_quantization",
]

StoredFormat = (
    Awq
    | BitsAndBytesInt8
    | FloatQuantized
    | Fp4
    | Fp8
    | Gptq
    | IntQuantized
    | Marlin
    | Nf4
    | OnLoad
    | PackQuantized
)  # of one projection
Quantization = StoredFormat | CompressedByModule | GptqByModule  # of a model

_PARSERS: dict[str, Callable[[Fields], Quantization]] = {
    "awq": parse_awq,
    "bitsandbytes": parse_bitsandbytes,
    "compressed-tensors": parse_compressed_tensors,
    "fbgemm_fp8": parse_fp8,
    "fp8": parse_fp8,
    "gptq": parse_gptq,
    "marlin": parse_gptq,
}


def parse_quantization(
    raw: Mapping[str, Any], source: str, default_method: str | None = None
) -> Quantization:
    """Return the format that a `quantization_config` describes.

    Raises:
        UnsupportedModelError: another method, or a variant of one that isn't read here.
        CorruptModelError: a key that is missing, mistyped or out of bounds; the message names it.
    """
    fields = Fields(raw, source)
    method = fields.text("quant_method") or default_method
    if method is None:
        raise fields.wrong("quant_method", None, "a string")
    if method == "exl2":
        raise UnsupportedModelError(
            "The checkpoint is quantised with exl2, which only ExLlamaV2's GPU kernels read.",
            hint="Use a GPTQ or AWQ version of the model, or quantise the original yourself.",
        )
    parser = _PARSERS.get(method)
    if parser is None:
        raise UnsupportedModelError(
            f"{source}: quant_method {method[:40]!r}; this build reads {', '.join(_PARSERS)}.",
            hint="Use the model's original repository, or a GGUF file of it.",
        )
    return parser(fields)


def formats_of(quantization: Quantization, modules: Iterable[str]) -> dict[str, StoredFormat]:
    """Return the format of each of a model's projections that isn't plain, in their order."""
    converted = quantization.converted_of(modules)
    if not isinstance(quantization, CompressedByModule | GptqByModule):
        return dict.fromkeys(converted, quantization)
    rules = [(rule, ModuleNames(rule.modules)) for rule in quantization.rules]
    formats: dict[str, StoredFormat] = {}
    for module in converted:
        meant = (rule.format for rule, names in rules if not rule.modules or module in names)
        format = next(meant, None)
        if format is not None:
            formats[module] = format
    return formats
