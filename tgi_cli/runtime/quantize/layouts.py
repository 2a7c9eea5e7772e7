"""A quantised layer as the tensors of a checkpoint, and back.

Tensors are named without the layer's prefix. `quantization_config` says to every reader what they
are; its keys are those that the format's own programs write.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import cache
from typing import TYPE_CHECKING

from tgi_cli.errors import ArgumentError
from tgi_cli.kernels.linear import Codes
from tgi_cli.runtime.config.quantization import Awq, Gptq, parse_quantization
from tgi_cli.runtime.config.quantize import QuantizeRecipe
from tgi_cli.runtime.layers.quantization import load_matrix
from tgi_cli.runtime.quantize.grid import QuantizedLinear
from tgi_cli.runtime.quantize.packing import values_per_block
from tgi_cli.runtime.quantize.solver import PROJECTIONS
from tgi_cli.runtime.quantize.write_awq import pack_awq
from tgi_cli.runtime.quantize.write_gptq import pack_gptq

if TYPE_CHECKING:
    from torch import Tensor

_UNUSED_DAMP = 0.01  # AutoGPTQ's default, of methods that damp nothing: its readers refuse 0


def check_layout(recipe: QuantizeRecipe, shapes: Mapping[str, tuple[int, int]]) -> None:
    """Check that the words of the layout are full for shapes [N, K] by projection.

    Raises:
        ArgumentError: names the projection and the size that doesn't fit.
    """
    per_block = values_per_block(recipe.bits)
    for name, (num_out, num_in) in shapes.items():
        if num_out % per_block:
            raise ArgumentError(
                f"{name} has {num_out} outputs, which {per_block} to a word don't divide: "
                f"--bits {recipe.bits} can't be stored.",
                hint="Use --bits 8." if recipe.bits != 8 and num_out % 4 == 0 else None,
            )
        if recipe.format == "gptq" and num_in % per_block:
            raise ArgumentError(
                f"{name} has {num_in} inputs, which {per_block} to a word don't divide: "
                f"--bits {recipe.bits} can't be stored."
            )


def pack_projection(linear: QuantizedLinear, recipe: QuantizeRecipe) -> dict[str, Tensor]:
    """Return one projection's tensors, on the CPU, by their suffixes."""
    index = linear.group_index
    linear = replace(
        linear,
        codes=linear.codes.cpu(),
        scales=linear.scales.cpu(),
        zeros=linear.zeros.cpu(),
        group_index=None if index is None else index.cpu(),
    )
    return pack_awq(linear) if recipe.format == "awq" else pack_gptq(linear)


def read_projection(tensors: Mapping[str, Tensor], recipe: QuantizeRecipe) -> Tensor:
    """Return the weight [N, K] fp32 that `tensors`, by their suffixes, are served as."""
    matrix = load_matrix(_format(recipe), tensors)
    return matrix.dequantize() if isinstance(matrix, Codes) else matrix


def read_layer(tensors: Mapping[str, Tensor], recipe: QuantizeRecipe) -> dict[str, Tensor]:
    """Return a stored layer's tensors in fp32, as a reader of the checkpoint computes them."""
    layer: dict[str, Tensor] = {}
    packed: dict[str, dict[str, Tensor]] = {name: {} for name in PROJECTIONS}
    for name, tensor in tensors.items():
        projection, _, suffix = name.rpartition(".")
        if projection in packed and suffix != "bias":
            packed[projection][suffix] = tensor
        else:
            layer[name] = tensor.float()
    for name, parts in packed.items():
        layer[f"{name}.weight"] = read_projection(parts, recipe)
    return layer


@cache
def _format(recipe: QuantizeRecipe) -> Awq | Gptq:
    format = parse_quantization(quantization_config(recipe), "quantization_config")
    assert isinstance(format, Awq | Gptq), format
    return format


def quantization_config(recipe: QuantizeRecipe) -> dict[str, object]:
    """Return the object of that name in config.json."""
    if recipe.format == "awq":
        return {
            "quant_method": "awq",
            "version": "gemm",
            "bits": recipe.bits,
            "group_size": recipe.group_size,
            "zero_point": True,  # stored for every group, also where it is the middle
            "modules_to_not_convert": ["lm_head"],
        }
    return {
        "quant_method": "gptq",
        "bits": recipe.bits,
        "group_size": recipe.group_size,
        "desc_act": recipe.desc_act,
        "sym": recipe.symmetric,
        "lm_head": False,
        "checkpoint_format": "gptq",
        "damp_percent": recipe.damp or _UNUSED_DAMP,
        "static_groups": not recipe.desc_act and recipe.damp is not None,
        "true_sequential": recipe.damp is not None,
    }
