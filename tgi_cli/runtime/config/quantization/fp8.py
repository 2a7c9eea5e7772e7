"""Checkpoints of 8-bit floats (e4m3) with scales for the tensor, its rows, or blocks of it.

Written by AutoFP8, vLLM and llmcompressor (`fp8`, `float-quantized`), by Meta (`fbgemm_fp8`), and
with blocks for DeepSeek-V3 (arXiv:2412.19437). What they say of activations is about speed on
GPUs: here these stay fp32, which is more exact, and `input_scale` is not read.
"""

from __future__ import annotations

from typing import ClassVar, Literal

from tgi_cli.runtime.config.fields import Fields
from tgi_cli.runtime.config.quantization.format import FP8, HALVES, Format, StoredTensor
from tgi_cli.runtime.config.quantization.values import MAX_GROUP_SIZE, module_names, unsupported

Extent = Literal["tensor", "channel", "block"]


class Fp8(Format, frozen=True, kw_only=True, tag="fp8"):
    """w[n, k] = q * s, with s of the tensor, of n, or of the block of n and k."""

    methods: ClassVar = ("fp8",)
    note: ClassVar = "weights only, scales of activations are not used"

    scales_of: Extent
    block: tuple[int, int] = (1, 1)  # output and input features
    scale_name: str = "weight_scale"

    def tensors(self, num_out: int, num_in: int) -> dict[str, StoredTensor]:
        per_row, per_tensor = (num_out, 1), (1,)
        if self.scales_of == "block":
            blocks = (-(-num_out // self.block[0]), -(-num_in // self.block[1]))
            scale = StoredTensor(blocks, HALVES)
        elif self.scales_of == "channel":
            scale = StoredTensor(per_row, HALVES, other_shapes=((num_out,),))
        else:  # some writers say so little that rows are possible too
            scale = StoredTensor(per_tensor, HALVES, other_shapes=((), (1, 1), per_row, (num_out,)))
        return {"weight": StoredTensor((num_out, num_in), FP8), self.scale_name: scale}

    def num_bytes(self, num_out: int, num_in: int, plain_bytes: int) -> int:
        groups = -(-num_in // self.block[1]) if self.scales_of == "block" else 1
        return num_out * (num_in + 4 * groups)


class FloatQuantized(Fp8, frozen=True, kw_only=True, tag="float-quantized"):
    """The same as compressed-tensors says it."""

    methods: ClassVar = ("compressed-tensors",)


def parse_fp8(fields: Fields) -> Fp8:
    """Read `quantization_config` of `fp8` or `fbgemm_fp8`."""
    layout = fields.text("fmt") or "e4m3"
    if layout not in ("e4m3", "float8_e4m3fn"):
        raise unsupported(fields, f"fp8 numbers in {layout[:40]!r}; this build reads e4m3")
    keys = ("ignored_layers", "modules_to_not_convert")
    unconverted = tuple(name for key in keys for name in module_names(fields, key))
    if fields.get("weight_block_size") is not None:
        block = block_of(fields, "weight_block_size")
        return Fp8(
            scales_of="block",
            block=block,
            scale_name="weight_scale_inv",
            unconverted=unconverted,
        )
    is_by_row = fields.text("quant_method") == "fbgemm_fp8"
    return Fp8(scales_of="channel" if is_by_row else "tensor", unconverted=unconverted)


def block_of(fields: Fields, key: str) -> tuple[int, int]:
    """Return output and input features of a block of scales."""
    value = fields.get(key)
    is_pair = isinstance(value, list) and len(value) == 2
    if not is_pair or not all(type(n) is int and 1 <= n <= MAX_GROUP_SIZE for n in value):
        raise fields.wrong(key, value, f"two integers from 1 to {MAX_GROUP_SIZE}")
    return value[0], value[1]
