"""What all quantised formats share: the tensors that a projection lies in, and which are converted.

A format is a frozen struct that a parser made of a checkpoint's configuration. It knows names,
types, shapes and sizes; `runtime/layers/quantization` knows the arithmetic. N is a projection's
output features, K its input features, G its groups along K.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import ClassVar

import msgspec

from tgi_cli.runtime.config.quantization.module_names import ModuleNames

FLOATS = frozenset({"F64", "F32", "F16", "BF16"})
HALVES = frozenset({"F32", "F16", "BF16"})
FP32 = frozenset({"F32"})
INT32 = frozenset({"I32"})
INT8 = frozenset({"I8"})
FP8 = frozenset({"F8_E4M3"})
HEAD = "lm_head"


@dataclass(frozen=True, slots=True)
class StoredTensor:
    """What one tensor of a checkpoint must be."""

    shape: tuple[int, ...]
    dtypes: frozenset[str]  # of safetensors
    is_required: bool = True
    other_shapes: tuple[tuple[int, ...], ...] = ()
    max_length: int = 0  # of bytes of text: [1] up to [max_length], whatever `shape` says

    def fits(self, shape: tuple[int, ...]) -> bool:
        if self.max_length:
            return len(shape) == 1 and 1 <= shape[0] <= self.max_length
        return shape in (self.shape, *self.other_shapes)


class Format(
    msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="format"
):
    """A quantised format, and the modules that are left in plain floats."""

    methods: ClassVar[tuple[str, ...]]  # values of --quantize that mean it, its own name first

    note: ClassVar[str] = ""  # what a user should know of how it is served

    unconverted: tuple[str, ...] = ()  # names or patterns of modules
    converted: tuple[str, ...] = ()  # if there are any, no others are converted
    converts_head: bool = False  # by the files: what lists and flags say of it differs by writer

    def converted_of(self, modules: Iterable[str]) -> tuple[str, ...]:
        """Return those of a model's projections that are stored in this format, in their order."""
        unconverted, converted = ModuleNames(self.unconverted), ModuleNames(self.converted)
        return tuple(
            module
            for module in modules
            if (self.converts_head if module == HEAD else module not in unconverted)
            and (not self.converted or module == HEAD or module in converted)
        )


def num_groups(num_in: int, group_size: int | None) -> int:
    """Return how many groups K input features have; None is one group of all.

    Raises:
        ValueError: the last would be shorter than the others.
    """
    if group_size is None:
        return 1
    if num_in % group_size:
        raise ValueError(f"group_size {group_size} doesn't divide its {num_in} input features")
    return num_in // group_size


def num_words(num_codes: int, bits: int, axis: str) -> int:
    """Return how many 32-bit words codes without gaps take. Raises `ValueError` if not whole."""
    if num_codes * bits % 32:
        raise ValueError(f"its {num_codes} {axis} features of {bits} bits don't fill 32-bit words")
    return num_codes * bits // 32
