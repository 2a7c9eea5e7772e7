"""GPTQ checkpoints as AutoGPTQ and gptqmodel write them, and the same in Marlin's tile order.

Frantar et al., GPTQ, arXiv:2210.17323. Marlin: https://github.com/IST-DASLab/marlin.
"""

from __future__ import annotations

from typing import ClassVar

import msgspec

from tgi_cli.runtime.config.fields import Fields
from tgi_cli.runtime.config.quantization.format import (
    HALVES,
    INT32,
    Format,
    StoredTensor,
    num_groups,
    num_words,
)
from tgi_cli.runtime.config.quantization.module_names import MAX_PATTERNS
from tgi_cli.runtime.config.quantization.values import (
    check_bits,
    check_names,
    group_size_of,
    module_names,
    unsupported,
)

BITS = (2, 3, 4, 8)
_SKIP, _SET = "-:", "+:"  # before a pattern of `dynamic`; the second may be left out
_STORED = frozenset({"bits", "group_size", "sym", "desc_act"})  # what `dynamic` may change
_SOLVED = frozenset(
    {
        "act_group_aware",
        "damp_auto_increment",
        "damp_percent",
        "gptaq",
        "mse",
        "static_groups",
        "true_sequential",
    }
)


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


class GptqRule(msgspec.Struct, frozen=True, kw_only=True):
    """What gptqmodel's `dynamic` says of the modules that a pattern means."""

    modules: tuple[str, ...]  # empty: all that no rule before means
    format: Gptq | None  # None: they stay plain


class GptqByModule(Format, frozen=True, kw_only=True, tag="gptq-by-module"):
    """The first rule that means a module decides."""

    methods: ClassVar = Gptq.methods

    rules: tuple[GptqRule, ...]


def parse_gptq(fields: Fields) -> Gptq | GptqByModule | Marlin:
    """Read `quantization_config`, or the same object in quantize_config.json."""
    layout = (
        fields.text("checkpoint_format")
        or fields.text("format")
        or ("marlin" if fields.flag("is_marlin_format", default=False) else "gptq")
    )
    if layout == "marlin" or fields.text("quant_method") == "marlin":
        format: Gptq | Marlin = _marlin(fields)
    elif layout in ("gptq", "gptq_v2"):
        format = _gptq(fields, layout)
    else:
        raise unsupported(
            fields,
            f"checkpoint_format {layout[:40]!r}; this build reads gptq, gptq_v2 and marlin",
        )
    unconverted = module_names(fields, "modules_to_not_convert")
    converted = module_names(fields, "modules_in_block_to_quantize")
    rules = _rules(fields, layout, format)
    if all(rule.format is None for rule in rules):
        skipped = tuple(name for rule in rules for name in rule.modules)
        return msgspec.structs.replace(
            format, unconverted=unconverted + skipped, converted=converted
        )
    assert isinstance(format, Gptq), "Marlin's have only rules that skip"
    rules = (*rules, GptqRule(modules=(), format=format))
    return GptqByModule(rules=rules, unconverted=unconverted, converted=converted)


def _marlin(fields: Fields) -> Marlin:
    bits = check_bits(fields, "bits", BITS)
    is_symmetric = fields.flag("sym", default=True)
    has_act_order = fields.flag("desc_act", default=False)
    if bits != 4 or not is_symmetric or has_act_order:
        raise unsupported(
            fields,
            "Marlin's order holds 4 bits, symmetric, without desc_act; it says bits "
            f"{bits}, sym {is_symmetric}, desc_act {has_act_order}",
        )
    return Marlin(group_size=group_size_of(fields, "group_size"))


def _gptq(fields: Fields, layout: str) -> Gptq:
    if fields.text("pack_dtype") not in (None, "int32"):
        raise fields.wrong("pack_dtype", fields.get("pack_dtype"), "'int32'")
    return Gptq(
        bits=check_bits(fields, "bits", BITS),
        group_size=group_size_of(fields, "group_size"),
        is_symmetric=fields.flag("sym", default=True),
        has_act_order=fields.flag("desc_act", default=False),
        stores_zero_minus_one=layout == "gptq",
        borrows=layout == "gptq" and _is_by_gptqmodel(fields),
    )


def _rules(fields: Fields, layout: str, usual: Gptq | Marlin) -> tuple[GptqRule, ...]:
    """Read gptqmodel's `dynamic`: patterns of modules that stay plain (`-:`), or differ.

    What it says of how they were solved, and not of how they are stored, doesn't matter here.
    """
    settings = fields.section("dynamic")
    rules = []
    for name in settings or ():
        assert settings is not None
        pattern = f"re:{name.removeprefix(_SKIP).removeprefix(_SET)}"
        modules = check_names(fields, "dynamic", [pattern])
        changes = settings.section(name)
        if name.startswith(_SKIP):
            rules.append(GptqRule(modules=modules, format=None))
        elif isinstance(usual, Gptq):
            rules.append(GptqRule(modules=modules, format=_changed(fields, layout, changes)))
        else:
            raise unsupported(fields, "'dynamic' settings beside Marlin's order aren't supported")
    if len(rules) > MAX_PATTERNS:
        raise fields.wrong("dynamic", f"{len(rules)} patterns", f"at most {MAX_PATTERNS} patterns")
    return tuple(rules)


def _changed(fields: Fields, layout: str, changes: Fields | None) -> Gptq:
    """Return the format of modules with settings of their own."""
    found = {} if changes is None else {key: changes.get(key) for key in changes}
    unknown = sorted(set(found) - _STORED - _SOLVED)
    if unknown:
        raise unsupported(fields, f"'dynamic' changes {unknown[0][:40]!r} of some modules")
    stored = {key: value for key, value in found.items() if key in _STORED}
    whole = {key: fields.get(key) for key in fields}
    return _gptq(Fields(whole | stored, f"{fields.source}: dynamic"), layout)


def _is_by_gptqmodel(fields: Fields) -> bool:
    meta = fields.section("meta")
    quantizers = None if meta is None else meta.get("quantizer")
    names = quantizers if isinstance(quantizers, list) else [quantizers]
    return any(isinstance(name, str) and name.startswith("gptqmodel") for name in names)
