"""Checkpoints of compressed-tensors, which llmcompressor writes.

Weights only: what the configuration says of activations and of the KV cache is about speed on
GPUs; here both stay as they are, which is more exact.
"""

from __future__ import annotations

from typing import ClassVar, Literal

import msgspec

from tgi_cli.runtime.config.fields import Fields
from tgi_cli.runtime.config.quantization.format import (
    HALVES,
    INT8,
    INT32,
    Format,
    StoredTensor,
    num_groups,
    num_words,
)
from tgi_cli.runtime.config.quantization.fp8 import Extent, FloatQuantized, block_of
from tgi_cli.runtime.config.quantization.values import (
    MAX_GROUP_SIZE,
    check_bits,
    module_names,
    refuse_if_set,
    unsupported,
)

_ALL = "Linear"  # as a target: every projection
_MAX_RULES = 64


class PackQuantized(Format, frozen=True, kw_only=True, tag="pack-quantized"):
    """w[n, k] = (q - z) * s in 4 or 8 bits, with z and s of n and the group of k."""

    methods: ClassVar = ("compressed-tensors",)

    bits: Literal[4, 8]
    group_size: int | None  # None: one group
    is_symmetric: bool
    has_act_order: bool = False
    has_one_scale: bool = False  # of the whole tensor

    def tensors(self, num_out: int, num_in: int) -> dict[str, StoredTensor]:
        groups = num_groups(num_in, self.group_size)
        words = num_words(num_in, self.bits, "input")
        scale_shape = (1,) if self.has_one_scale else (num_out, groups)
        tensors = {
            "weight_packed": StoredTensor((num_out, words), INT32),
            "weight_scale": StoredTensor(scale_shape, HALVES),
            # Some writers store zero points of symmetric weights too, older ones without packing.
            "weight_zero_point": StoredTensor(
                (-(-num_out * self.bits // 32), groups),
                INT32 | INT8,
                is_required=not self.is_symmetric,
                other_shapes=(scale_shape,),
            ),
        }
        if self.has_act_order:
            tensors["weight_g_idx"] = StoredTensor((num_in,), INT32)
        return tensors

    def num_bytes(self, num_out: int, num_in: int, plain_bytes: int) -> int:
        groups = num_groups(num_in, self.group_size)
        if self.bits == 8:
            return num_out * (num_in + (4 if self.is_symmetric else 8) * groups)
        return num_out * (num_in // 2 + 8 * groups)


class IntQuantized(Format, frozen=True, kw_only=True, tag="int-quantized"):
    """w[n, k] = (q - z) * s in 8 signed bits, with z and s of n and the group of k."""

    methods: ClassVar = ("compressed-tensors",)
    note: ClassVar = "weights only, activations stay float32"

    group_size: int | None  # None: one group
    is_symmetric: bool = True
    has_one_scale: bool = False  # of the whole tensor

    def tensors(self, num_out: int, num_in: int) -> dict[str, StoredTensor]:
        groups = num_groups(num_in, self.group_size)
        scale_shape = (1,) if self.has_one_scale else (num_out, groups)
        return {
            "weight": StoredTensor((num_out, num_in), INT8),
            "weight_scale": StoredTensor(scale_shape, HALVES),
            "weight_zero_point": StoredTensor(scale_shape, INT8, is_required=not self.is_symmetric),
        }

    def num_bytes(self, num_out: int, num_in: int, plain_bytes: int) -> int:
        groups = num_groups(num_in, self.group_size)
        return num_out * (num_in + (4 if self.is_symmetric else 8) * groups)


class CompressedRule(msgspec.Struct, frozen=True, kw_only=True):
    """What a group of settings says of its targets."""

    modules: tuple[str, ...]  # names and patterns; empty: all that no rule before means
    format: PackQuantized | IntQuantized | FloatQuantized | None  # None: they stay plain


class CompressedByModule(Format, frozen=True, kw_only=True, tag="compressed-by-module"):
    """The first rule that means a module decides; what none means stays plain."""

    methods: ClassVar = PackQuantized.methods

    rules: tuple[CompressedRule, ...]


def parse_compressed_tensors(
    fields: Fields,
) -> PackQuantized | IntQuantized | FloatQuantized | CompressedByModule:
    """Read `quantization_config`: groups of settings for all linear layers, or for some."""
    refuse_if_set(fields, "transform_config", "rotations of activations")
    sparsity = fields.section("sparsity_config")
    if sparsity is not None and sparsity.text("format") not in (None, "dense"):
        raise unsupported(fields, "sparse weights aren't supported")
    unconverted = module_names(fields, "ignore")
    rules = _rules(fields)
    only = rules[0].format if len(rules) == 1 else None
    if only is not None:
        return msgspec.structs.replace(only, unconverted=unconverted, converted=rules[0].modules)
    if all(rule.format is None for rule in rules):
        raise unsupported(fields, "config_groups must have a group with weights")
    return CompressedByModule(rules=rules, unconverted=unconverted)


def _rules(fields: Fields) -> tuple[CompressedRule, ...]:
    """Return what the groups say: names and patterns before those that mean all linear layers."""
    groups = fields.section("config_groups")
    named, general = [], []
    for name in groups or ():
        assert groups is not None
        group = groups.section(name)
        if group is None:
            continue
        weights = group.section("weights")
        targets = module_names(group, "targets")
        modules = tuple(target for target in targets if target != _ALL)
        if not targets or not all(each.startswith("re:") or "." in each for each in modules):
            shown = ", ".join(targets)[:80]
            raise unsupported(
                group, f"targets [{shown}] must be Linear, or names or patterns of some"
            )
        format = None
        if weights is not None:
            refuse_if_set(weights, "dynamic", "scales computed while serving")
            layout = group.text("format") or fields.text("format") or "none"
            format = _format_of(weights, layout)
        if modules:
            named.append(CompressedRule(modules=modules, format=format))
        if _ALL in targets:
            general.append(CompressedRule(modules=(), format=format))
    if len(named) + len(general) > _MAX_RULES:
        raise fields.wrong("config_groups", f"{len(named)} groups", f"at most {_MAX_RULES} groups")
    return (*named, *general[:1])


def _format_of(weights: Fields, layout: str) -> PackQuantized | IntQuantized | FloatQuantized:
    if layout == "pack-quantized":
        return _pack_quantized(weights)
    kind = weights.text("type") or "int"
    if layout == "int-quantized" or (layout == "naive-quantized" and kind == "int"):
        return _int_quantized(weights)
    if layout in ("float-quantized", "naive-quantized"):
        return _float_quantized(weights)
    raise unsupported(
        weights,
        f"compressed-tensors format {layout[:40]!r}; this build reads pack-quantized, "
        "int-quantized and float-quantized",
    )


def _pack_quantized(weights: Fields) -> PackQuantized:
    if (weights.text("type") or "int") != "int":
        raise weights.wrong("type", weights.get("type"), "'int'")
    strategy = weights.text("strategy") or "group"
    if strategy not in ("group", "channel", "tensor"):
        raise weights.wrong("strategy", strategy, "'group', 'channel' or 'tensor'")
    order = weights.get("actorder")
    if order not in (None, False, True, "group", "dynamic", "weight", "static"):
        raise weights.wrong("actorder", order, "'group' or 'weight'")
    is_grouped = strategy == "group"
    return PackQuantized(
        bits=check_bits(weights, "num_bits", (4, 8)),  # type: ignore[arg-type]
        group_size=weights.size("group_size", limit=MAX_GROUP_SIZE) if is_grouped else None,
        is_symmetric=weights.flag("symmetric", default=True),
        has_act_order=order in (True, "group", "dynamic"),
        has_one_scale=strategy == "tensor",
    )


def _int_quantized(weights: Fields) -> IntQuantized:
    check_bits(weights, "num_bits", (8,))
    if (weights.text("type") or "int") != "int":
        raise weights.wrong("type", weights.get("type"), "'int'")
    strategy = weights.text("strategy") or "tensor"
    if strategy not in ("group", "channel", "tensor"):
        raise weights.wrong("strategy", strategy, "'group', 'channel' or 'tensor'")
    is_grouped = strategy == "group"
    return IntQuantized(
        group_size=weights.size("group_size", limit=MAX_GROUP_SIZE) if is_grouped else None,
        is_symmetric=weights.flag("symmetric", default=True),
        has_one_scale=strategy == "tensor",
    )


def _float_quantized(weights: Fields) -> FloatQuantized:
    check_bits(weights, "num_bits", (8,))
    if weights.text("type") != "float":
        raise weights.wrong("type", weights.get("type"), "'float'")
    strategy = weights.text("strategy") or "tensor"
    if strategy == "block":
        block = block_of(weights, "block_structure")
        return FloatQuantized(scales_of="block", block=block)
    if strategy not in ("channel", "tensor"):
        raise weights.wrong("strategy", strategy, "'tensor', 'channel' or 'block'")
    extent: Extent = "channel" if strategy == "channel" else "tensor"
    return FloatQuantized(scales_of=extent)
