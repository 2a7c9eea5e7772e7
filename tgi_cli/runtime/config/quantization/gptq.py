"""GPTQ checkpoints as AutoGPTQ and gptqmodel write them, and the same in Marlin's tile order.

Frantar et al., GPTQ, arXiv:2210.17323. Marlin: https://github.com/IST-DASLab/marlin.
"""

from __future__ import annotations

from typing import ClassVar

from tgi_cli.runtime.config.fields import Fields
from tgi_cli.runtime.config.quantization.format import (
    HALVES,
    INT32,
    Format,
    StoredTensor,
    num_groups,
    num_words,
)
from tgi_cli.runtime.config.quantization.values import (
    check_bits,
    check_names,
    group_size_of,
    module_names,
    unsupported,
)

BITS = (2, 3, 4, 8)
_SKIP = "-:"


class Gptq(Format, frozen=True, kw_only=True, tag="gptq"):
    """w[n, k] = (q - z) * s, with z and s of n and the group of k."""

    methods: ClassVar = ("gptq", "marlin")

    bits: int
    group_size: int | None  # None: one group
    is_symmetric: bool
    has_act_order: bool  # features of one group may be anywhere
    stores_zero_minus_one: bool  # v1; v2 stores zero points as they are
    borrows: bool = False  # v1 made by one subtraction a word, of gptqmodel

    def tensors(self, num_out: int, num_in: int) -> dict[str, StoredTensor]:
        groups = num_groups(num_in, self.group_size)
        words = num_words(num_in, self.bits, "input")
        zero_words = num_words(num_out, self.bits, "output")
        return {
            "qweight": StoredTensor((words, num_out), INT32),
            "qzeros": StoredTensor((groups, zero_words), INT32),
            "scales": StoredTensor((groups, num_out), HALVES),
            "g_idx": StoredTensor((num_in,), INT32, is_required=self.has_act_order),
        }

    def num_bytes(self, num_out: int, num_in: int, plain_bytes: int) -> int:
        groups = num_groups(num_in, self.group_size)
        if self.bits == 8:
            return num_out * (num_in + (4 if self.is_symmetric else 8) * groups)
        return num_out * (num_in // 2 + (4 if self.is_symmetric else 8) * groups)


class Marlin(Format, frozen=True, kw_only=True, tag="marlin"):
    """GPTQ's symmetric 4 bits, tiled for a GPU kernel."""

    methods: ClassVar = ("marlin", "gptq")

    group_size: int | None

    def tensors(self, num_out: int, num_in: int) -> dict[str, StoredTensor]:
        groups = num_groups(num_in, self.group_size)
        if num_in % 16 or num_out % 64:
            raise ValueError(f"tiles of 16 by 64 don't fill its {num_in} by {num_out} features")
        return {
            "B": StoredTensor((num_in // 16, num_out * 2), INT32),
            "s": StoredTensor((groups, num_out), HALVES),
        }

    def num_bytes(self, num_out: int, num_in: int, plain_bytes: int) -> int:
        return num_out * (num_in // 2 + 4 * num_groups(num_in, self.group_size))


def parse_gptq(fields: Fields) -> Gptq | Marlin:
    """Read `quantization_config`, or the same object in quantize_config.json."""
    bits = check_bits(fields, "bits", BITS)
    group_size = group_size_of(fields, "group_size")
    is_symmetric = fields.flag("sym", default=True)
    has_act_order = fields.flag("desc_act", default=False)
    if fields.text("pack_dtype") not in (None, "int32"):
        raise fields.wrong("pack_dtype", fields.get("pack_dtype"), "'int32'")
    layout = (
        fields.text("checkpoint_format")
        or fields.text("format")
        or ("marlin" if fields.flag("is_marlin_format", default=False) else "gptq")
    )
    unconverted = module_names(fields, "modules_to_not_convert") + _skipped(fields)
    converted = module_names(fields, "modules_in_block_to_quantize")
    if layout == "marlin" or fields.text("quant_method") == "marlin":
        if bits != 4 or not is_symmetric or has_act_order:
            raise unsupported(
                fields,
                "Marlin's order holds 4 bits, symmetric, without desc_act; it says bits "
                f"{bits}, sym {is_symmetric}, desc_act {has_act_order}",
            )
        return Marlin(
            group_size=group_size,
            unconverted=unconverted,
            converted=converted,
        )
    if layout not in ("gptq", "gptq_v2"):
        raise unsupported(
            fields,
            f"checkpoint_format {layout[:40]!r}; this build reads gptq, gptq_v2 and marlin",
        )
    return Gptq(
        bits=bits,
        group_size=group_size,
        is_symmetric=is_symmetric,
        has_act_order=has_act_order,
        stores_zero_minus_one=layout == "gptq",
        borrows=layout == "gptq" and _is_by_gptqmodel(fields),
        unconverted=unconverted,
        converted=converted,
    )


def _skipped(fields: Fields) -> tuple[str, ...]:
    """Return the patterns of modules that gptqmodel's `dynamic` leaves plain (`-:`)."""
    rules = tuple(fields.section("dynamic") or ())
    if not all(rule.startswith(_SKIP) for rule in rules):
        raise unsupported(
            fields, "'dynamic' (settings of its own for some modules) isn't supported"
        )
    return check_names(fields, "dynamic", [f"re:{rule.removeprefix(_SKIP)}" for rule in rules])


def _is_by_gptqmodel(fields: Fields) -> bool:
    meta = fields.section("meta")
    quantizers = None if meta is None else meta.get("quantizer")
    names = quantizers if isinstance(quantizers, list) else [quantizers]
    return any(isinstance(name, str) and name.startswith("gptqmodel") for name in names)
