"""Tiny checkpoints of 8 bits, or 4 that point into a table; each with its plain twin in fp32."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from tests.builders.checkpoints import write_tiny_checkpoint
from tests.builders.quantized import change_config
from tgi_cli.kernels.linear import Codes
from tgi_cli.runtime.config.quantization import OnLoad
from tgi_cli.runtime.config.quantization.on_load import Method
from tgi_cli.runtime.layers.quantization import load_matrix

_SIZES = {
    "hidden_size": 128,
    "intermediate_size": 192,
    "num_hidden_layers": 2,
    "head_dim": 32,
    "max_position_embeddings": 256,
}
_BLOCK = (48, 32)
Quantised = tuple[dict[str, Tensor], Tensor]  # what is stored, by suffix; the same in fp32


@dataclass(frozen=True)
class Narrow:
    config: dict[str, Any]
    quantise: Callable[[Tensor], Quantised]


def _compressed(format: str, kind: str, strategy: str, **changes: Any) -> dict[str, Any]:
    weights = {"num_bits": 8, "type": kind, "strategy": strategy, "symmetric": True} | changes
    activations = {"num_bits": 8, "type": kind, "dynamic": True, "strategy": "token"}
    group = {"targets": ["Linear"], "weights": weights, "input_activations": activations}
    return {
        "quant_method": "compressed-tensors",
        "format": format,
        "ignore": ["lm_head"],
        "config_groups": {"group_0": group},
    }


def _bitsandbytes(**changes: Any) -> dict[str, Any]:
    defaults = {"load_in_4bit": False, "load_in_8bit": False, "llm_int8_skip_modules": None}
    return {"quant_method": "bitsandbytes", **defaults, **changes}


def _times(values: Tensor, scales: Tensor) -> Tensor:
    """Return products rounded once to fp32."""
    return (values.double() * scales.double()).float()


def _fp8(weight: Tensor, scale: Tensor, name: str = "weight_scale") -> Quantised:
    """`scale` may be of the tensor, of rows or of blocks."""
    whole = scale
    if scale.ndim == 2 and scale.shape[1] > 1:
        whole = scale.repeat_interleave(_BLOCK[0], 0).repeat_interleave(_BLOCK[1], 1)
        whole = whole[: weight.shape[0], : weight.shape[1]]
    codes = (weight / whole).to(torch.float8_e4m3fn)
    stored = {"weight": codes, name: scale, "input_scale": torch.tensor(0.25)}
    return stored, _times(codes.float(), whole)


def _fp8_of_tensor(weight: Tensor) -> Quantised:
    return _fp8(weight, weight.abs().max() / 448)


def _fp8_of_rows(weight: Tensor) -> Quantised:
    return _fp8(weight, weight.abs().amax(1, keepdim=True) / 448)


def _fp8_of_blocks(weight: Tensor) -> Quantised:
    shape = [-(-size // block) for size, block in zip(weight.shape, _BLOCK, strict=True)]
    return _fp8(weight, torch.rand(shape) * 0.01 + weight.abs().max() / 448, "weight_scale_inv")


def _int8_of_rows(weight: Tensor) -> Quantised:
    scale = (weight.abs().amax(1, keepdim=True) / 120).bfloat16()
    codes = (weight / scale.float()).round().to(torch.int8)
    return {"weight": codes, "weight_scale": scale}, _times(codes, scale)


def _int8_with_zeros(weight: Tensor) -> Quantised:
    num_out = weight.shape[0]
    groups = weight.view(num_out, -1, 32)
    low, high = groups.amin(-1), groups.amax(-1)
    scale = ((high - low) / 250).bfloat16()
    zero = (-126 - low / scale.float()).round().to(torch.int8)
    whole, shift = (each.repeat_interleave(32, 1).float() for each in (scale, zero))
    codes = (weight / whole + shift).round().clamp(-128, 127).to(torch.int8)
    stored = {"weight": codes, "weight_scale": scale, "weight_zero_point": zero}
    return stored, _times(codes.float() - shift, whole)


def _bitsandbytes_int8(weight: Tensor) -> Quantised:
    largest = weight.abs().amax(1)
    codes = (weight / largest[:, None] * 127).round().to(torch.int8)
    return {"weight": codes, "SCB": largest}, _times(codes, (largest / 127)[:, None])


def _four_bits(
    kind: str, *, is_nested: bool = False, blocksize: int = 64
) -> Callable[[Tensor], Quantised]:
    """Random codes and a random table: what matters here is that they are found and multiplied."""

    def quantise(weight: Tensor) -> Quantised:
        shape, num_blocks = weight.shape, weight.numel() // blocksize
        codes = torch.randint(0, 16, (weight.numel(),), dtype=torch.uint8)
        table = torch.randn(16, generator=torch.Generator().manual_seed(5))  # alike in all
        state = {"quant_type": kind, "blocksize": blocksize, "shape": list(shape)}
        absmax = torch.rand(num_blocks) * 0.1
        stored = {"weight": (codes[::2] << 4 | codes[1::2])[:, None], "weight.quant_map": table}
        if is_nested:
            places = torch.randint(0, 256, (num_blocks,), dtype=torch.uint8)
            nested_map, outer = torch.rand(256), torch.rand(-(-num_blocks // 256)) * 0.1
            absmax = nested_map[places.int()] * outer.repeat_interleave(256)[:num_blocks] + 0.25
            stored["weight.nested_absmax"], stored["weight.nested_quant_map"] = outer, nested_map
            state |= {"nested_blocksize": 256, "nested_offset": 0.25, "nested_dtype": "float32"}
        stored["weight.absmax"] = places if is_nested else absmax
        text = json.dumps({**state, "dtype": "float16"}).encode()
        stored[f"weight.quant_state.bitsandbytes__{kind}"] = torch.tensor(
            list(text), dtype=torch.uint8
        )
        plain = _times(table[codes.int()], absmax.repeat_interleave(blocksize))
        return stored, plain.view(shape)

    return quantise


_FBGEMM = {"quant_method": "fbgemm_fp8", "modules_to_not_convert": ["lm_head"]}
NARROW = {
    "fp8": Narrow({"quant_method": "fp8", "activation_scheme": "static"}, _fp8_of_tensor),
    "fp8-blocks": Narrow(
        {"quant_method": "fp8", "fmt": "e4m3", "weight_block_size": list(_BLOCK)}, _fp8_of_blocks
    ),
    "fbgemm": Narrow({**_FBGEMM, "activation_scale_ub": 1200.0}, _fp8_of_rows),
    "float-quantized": Narrow(_compressed("float-quantized", "float", "channel"), _fp8_of_rows),
    "int-quantized": Narrow(_compressed("int-quantized", "int", "channel"), _int8_of_rows),
    "int-quantized-asym": Narrow(
        _compressed("int-quantized", "int", "group", group_size=32, symmetric=False),
        _int8_with_zeros,
    ),
    "bitsandbytes": Narrow(_bitsandbytes(load_in_8bit=True), _bitsandbytes_int8),
    "nf4": Narrow(_bitsandbytes(load_in_4bit=True, bnb_4bit_quant_type="nf4"), _four_bits("nf4")),
    "nf4-blocks-over-rows": Narrow(  # of 192 inputs
        _bitsandbytes(load_in_4bit=True, bnb_4bit_quant_type="nf4"),
        _four_bits("nf4", blocksize=128),
    ),
    "fp4": Narrow(_bitsandbytes(load_in_4bit=True), _four_bits("fp4")),
    "nf4-nested": Narrow(
        _bitsandbytes(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True),
        _four_bits("nf4", is_nested=True),
    ),
}


def write_narrow(
    folder: Path, narrow: Narrow, *, quantized: tuple[str, ...] = ("_proj",), **model: Any
) -> tuple[Path, Path]:
    """Write both checkpoints; return their folders, the narrow one first.

    Modules whose names end with one of `quantized` are converted.
    """
    packed_folder, plain_folder = folder / "packed", folder / "plain"
    write_tiny_checkpoint(plain_folder, **{**_SIZES, **model})
    shutil.copytree(plain_folder, packed_folder)
    plain = load_file(plain_folder / "model.safetensors")
    packed = dict(plain)
    torch.manual_seed(11)
    for name in sorted(plain):
        module = name.removesuffix(".weight")
        if name != module and module.endswith(quantized):
            del packed[name]
            stored, plain[name] = narrow.quantise(plain[name])
            packed |= {f"{module}.{suffix}": tensor for suffix, tensor in stored.items()}
    save_file(plain, plain_folder / "model.safetensors")
    save_file(packed, packed_folder / "model.safetensors")
    change_config(packed_folder, quantization_config=narrow.config)
    return packed_folder, plain_folder


def write_loaded(folder: Path, method: Method) -> tuple[Path, Path]:
    """Write a plain model, and the twin that `method` makes of it while it is loaded."""
    source, twin = folder / "source", folder / "twin"
    write_tiny_checkpoint(source, **_SIZES)
    shutil.copytree(source, twin)
    tensors = load_file(source / "model.safetensors")
    for name, weight in tensors.items():
        if name.endswith("_proj.weight"):
            matrix = load_matrix(OnLoad(method=method), {"weight": weight})
            tensors[name] = matrix.dequantize() if isinstance(matrix, Codes) else matrix
    save_file(tensors, twin / "model.safetensors")
    return source, twin
