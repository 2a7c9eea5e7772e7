"""Checkpoints that transformers saved of a model quantised with bitsandbytes.

int8: Dettmers et al., LLM.int8(), arXiv:2208.07339, whose outlier columns are a matter of running
int8 activations; with weights alone in int8 none are needed. nf4 and fp4: QLoRA, arXiv:2305.14314.
"""

from __future__ import annotations

from typing import ClassVar

from tgi_cli.runtime.config.fields import Fields
from tgi_cli.runtime.config.quantization.format import FP32, INT8, Format, StoredTensor
from tgi_cli.runtime.config.quantization.values import module_names, unsupported

BLOCK_SIZES = (32, 64, 128, 256, 512, 1024, 2048, 4096)
NESTED_BLOCK_SIZE = 256
TABLE_SIZE = 16
_MAX_STATE_BYTES = 4096
_STORAGE = frozenset({"U8", "I8", "F16", "BF16", "I16", "F32", "I32"})  # bytes in disguise


class BitsAndBytesInt8(Format, frozen=True, kw_only=True, tag="bitsandbytes-int8"):
    """w[n, k] = q * SCB[n] / 127."""

    methods: ClassVar = ("bitsandbytes",)
    note: ClassVar = "weights only, so no columns of outliers are kept apart"

    def tensors(self, num_out: int, num_in: int) -> dict[str, StoredTensor]:
        return {
            "weight": StoredTensor((num_out, num_in), INT8),
            "SCB": StoredTensor((num_out,), FP32),
        }

    def num_bytes(self, num_out: int, num_in: int, plain_bytes: int) -> int:
        return num_out * (num_in + 4)


class _FourBits(Format, frozen=True, kw_only=True):
    """w = quant_map[q] * absmax of the block; blocks run along the flattened matrix.

    With `is_nested` absmax is itself in 8 bits: nested_quant_map[a] * nested_absmax + an offset.
    """

    is_nested: bool
    block_size: int = 64  # as the files have it: the configuration doesn't say

    @property
    def state_name(self) -> str:
        """The tensor that holds sizes and offset as JSON; its name says which four bits."""
        return f"weight.quant_state.{self.methods[0].replace('-', '__')}"

    def tensors(self, num_out: int, num_in: int) -> dict[str, StoredTensor]:
        num_bytes = -(-num_out * num_in // 2)
        storage = tuple((num_bytes // item_bytes, 1) for item_bytes in (1, 2, 4))
        blocks = tuple((-(-num_out * num_in // size),) for size in BLOCK_SIZES)
        outer = tuple((-(-n // NESTED_BLOCK_SIZE),) for (n,) in blocks)
        tensors = {
            "weight": _any_of(storage, _STORAGE),
            "weight.absmax": _any_of(blocks, frozenset({"U8"}) if self.is_nested else FP32),
            "weight.quant_map": StoredTensor((TABLE_SIZE,), FP32),
            self.state_name: StoredTensor((1,), frozenset({"U8"}), max_length=_MAX_STATE_BYTES),
        }
        if self.is_nested:
            tensors["weight.nested_absmax"] = _any_of(outer, FP32)
            tensors["weight.nested_quant_map"] = StoredTensor((256,), FP32)
        return tensors

    def num_bytes(self, num_out: int, num_in: int, plain_bytes: int) -> int:
        if num_in % self.block_size:  # rows that share blocks are dequantised
            return num_out * num_in * plain_bytes
        return num_out * (num_in // 2 + 4 * num_in // self.block_size)


class Nf4(_FourBits, frozen=True, kw_only=True, tag="bitsandbytes-nf4"):
    methods: ClassVar = ("bitsandbytes-nf4", "bitsandbytes")


class Fp4(_FourBits, frozen=True, kw_only=True, tag="bitsandbytes-fp4"):
    methods: ClassVar = ("bitsandbytes-fp4", "bitsandbytes")


def parse_bitsandbytes(fields: Fields) -> BitsAndBytesInt8 | Nf4 | Fp4:
    """Read `quantization_config`."""
    has_four = fields.flag("load_in_4bit", default=False)
    if has_four == fields.flag("load_in_8bit", default=False):
        raise unsupported(fields, "exactly one of load_in_4bit and load_in_8bit must be true")
    unconverted = module_names(fields, "llm_int8_skip_modules")
    if not has_four:
        return BitsAndBytesInt8(unconverted=unconverted)
    is_nested = fields.flag("bnb_4bit_use_double_quant", default=False)
    kind = fields.text("bnb_4bit_quant_type") or "fp4"
    if kind not in ("nf4", "fp4"):
        raise fields.wrong("bnb_4bit_quant_type", kind, "'nf4' or 'fp4'")
    format = Nf4 if kind == "nf4" else Fp4
    return format(is_nested=is_nested, unconverted=unconverted)


def block_size_of(num_weights: int, num_blocks: int) -> int | None:
    """Return the size of the blocks that so many weights are cut into; None if none fits."""
    return next((size for size in BLOCK_SIZES if -(-num_weights // size) == num_blocks), None)


def _any_of(shapes: tuple[tuple[int, ...], ...], dtypes: frozenset[str]) -> StoredTensor:
    return StoredTensor(shapes[0], dtypes, other_shapes=shapes[1:])
