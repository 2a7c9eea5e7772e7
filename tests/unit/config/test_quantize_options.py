"""Options of `tgi quantize`: what they come to, and which contradict each other."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

import pytest

from tgi_cli.errors import ArgumentError
from tgi_cli.runtime.config.quantize import (
    QUANTIZE_SETTINGS,
    QuantizeOptions,
    QuantizeRecipe,
    decide,
    read_options,
)


def decided(**options: Any) -> QuantizeRecipe:
    return decide(QuantizeOptions(model="m", output="o", **options))


def test_every_field_but_the_arguments_has_a_flag() -> None:
    names = {field.name for field in fields(QuantizeOptions)} - {"model", "output"}

    assert {setting.name for setting in QUANTIZE_SETTINGS} == names


@pytest.mark.parametrize(
    ("options", "format", "bits", "group_size", "symmetric"),
    [
        ({}, "gptq", 4, 128, True),
        ({"sym": False}, "gptq", 4, 128, False),
        ({"method": "awq"}, "awq", 4, 128, False),
        ({"method": "awq", "sym": True}, "gptq", 4, 128, True),
        ({"method": "awq", "format": "gptq"}, "gptq", 4, 128, False),
        ({"method": "awq+gptq", "group_size": 64}, "awq", 4, 64, False),
        ({"method": "awq+gptq", "desc_act": True}, "gptq", 4, 128, False),
        ({"method": "awq", "bits": 3}, "gptq", 3, 128, False),
        ({"method": "rtn"}, "gptq", 4, 128, True),
        ({"method": "rtn", "sym": False}, "awq", 4, 128, False),
        ({"method": "rtn", "format": "awq"}, "awq", 4, 128, False),
        ({"method": "gptq", "format": "awq", "sym": True}, "awq", 4, 128, True),
        ({"method": "int8"}, "gptq", 8, -1, True),
        ({"method": "awq", "sym": True, "backend": "gptqmodel"}, "awq", 4, 128, True),
        ({"method": "gptq", "bits": 2, "group_size": -1}, "gptq", 2, -1, True),
    ],
)
def test_what_is_not_said_follows_from_the_method(
    options: dict[str, Any], format: str, bits: int, group_size: int, symmetric: bool
) -> None:
    recipe = decided(**options)

    assert (recipe.format, recipe.bits) == (format, bits)
    assert (recipe.group_size, recipe.symmetric) == (group_size, symmetric)


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"method": "int8", "bits": 4}, "--bits 4: --method int8 has 8"),
        ({"method": "int8", "sym": False}, "--asym: --method int8"),
        ({"method": "int8", "group_size": 64}, "--group-size 64: --method int8"),
        ({"method": "int8", "format": "awq"}, "--bits 8: --format awq"),
        ({"method": "awq", "bits": 8, "format": "awq"}, "--format awq holds 4 bits"),
        ({"desc_act": True, "format": "awq"}, "--desc-act: --format awq"),
        ({"method": "rtn", "desc_act": True}, "--desc-act is GPTQ's"),
        ({"method": "awq", "damp": 0.1}, "--damp is GPTQ's"),
        ({"method": "rtn", "calibration": "x"}, "--calibration: --method rtn"),
        ({"method": "int8", "num_samples": 3}, "--num-samples: --method int8"),
        ({"method": "rtn", "seed": 3}, "--seed: --method rtn"),
        ({"evaluation": False, "max_kl": 0.1}, "--max-kl is a bound"),
        ({"evaluation": False, "max_ppl_increase": 0.1}, "--max-ppl-increase is a bound"),
        ({"against": "x"}, "--against goes with --evaluate"),
        ({"backend": "autogptq", "method": "awq"}, "--backend autogptq does --method gptq"),
        ({"backend": "gptqmodel", "resume": True}, "--resume: --backend gptqmodel"),
        ({"backend": "gptqmodel", "format": "awq"}, "--format awq: --backend gptqmodel"),
        ({"backend": "autoawq", "method": "awq", "bits": 3}, "--bits 3: --format awq"),
        ({"backend": "gptqmodel", "shard_size": 9}, "--shard-size: --backend gptqmodel"),
    ],
)
def test_contradictions_are_refused_by_name(options: dict[str, Any], text: str) -> None:
    with pytest.raises(ArgumentError, match=text):
        decided(**options)


@pytest.mark.parametrize("arguments", [{}, {"model": "m"}, {"output": "o"}])
def test_model_and_output_are_needed(arguments: dict[str, str]) -> None:
    with pytest.raises(ArgumentError, match="Give the model and the folder"):
        decide(QuantizeOptions(**arguments))


@pytest.mark.parametrize(
    ("flags", "text"),
    [
        ({"evaluate": "x"}, "--evaluate needs --against"),
        ({"evaluate": "x", "against": "y", "model": "m"}, "only measures: model"),
        ({"evaluate": "x", "against": "y", "group_size": 64}, "--group-size doesn't go with it"),
        ({"evaluate": "x", "against": "y", "dry_run": True}, "--dry-run doesn't go with it"),
    ],
)
def test_measuring_alone_takes_no_options_of_quantising(flags: dict[str, Any], text: str) -> None:
    with pytest.raises(ArgumentError, match=text):
        read_options(flags)


@pytest.mark.parametrize(
    ("name", "text"),
    [("bits", "5"), ("group_size", "0"), ("device", "tpu"), ("push_to_hub", "a/b/c"),
     ("damp", "1.5"), ("max_kl", "0"), ("max_ppl_increase", "200%"), ("num_samples", "0")],
)  # fmt: skip
def test_values_out_of_range_are_refused(name: str, text: str) -> None:
    setting = next(each for each in QUANTIZE_SETTINGS if each.name == name)

    with pytest.raises(ValueError, match=r"."):
        setting.parse(text)
