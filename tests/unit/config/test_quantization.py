"""What a checkpoint says of its quantisation: read by an allow-list, weighed with --quantize."""

from __future__ import annotations

import contextlib
import dataclasses
import re
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.builders.narrow import NARROW
from tests.builders.quantized import AWQ, MARLIN, compressed, gptq
from tests.builders.serving import CONFIG, hardware, model_facts
from tgi_cli.errors import ArgumentError, CorruptModelError, StartError, UnsupportedModelError
from tgi_cli.runtime.config.model_config import WeightsSource
from tgi_cli.runtime.config.options import ServeOptions
from tgi_cli.runtime.config.quantization import Gptq, formats_of, parse_quantization
from tgi_cli.runtime.config.quantization.module_names import ModuleNames, patterns_of
from tgi_cli.runtime.config.resolve import resolve
from tgi_cli.runtime.config.resolved import ResolvedConfig
from tgi_cli.runtime.config.stored_tensors import num_parameters, stored_tensors, weights_bytes

GPTQ = gptq().config
COMPRESSED = compressed(4, is_symmetric=True).config
UP_PROJ, Q_PROJ = MODULES = ("model.layers.0.mlp.up_proj", "model.layers.0.self_attn.q_proj")


def with_weights(**changes: Any) -> dict[str, Any]:
    group = COMPRESSED["config_groups"]["group_0"]
    group = {**group, "weights": {**group["weights"], **changes}}
    return {**COMPRESSED, "config_groups": {"group_0": group}}


def with_targets(*targets: Any) -> dict[str, Any]:
    group = {**COMPRESSED["config_groups"]["group_0"], "targets": list(targets)}
    return {**COMPRESSED, "config_groups": {"group_0": group}}


def with_groups(*changes: dict[str, Any]) -> dict[str, Any]:
    group = COMPRESSED["config_groups"]["group_0"]
    groups = {f"group_{index}": {**group, **each} for index, each in enumerate(changes)}
    return {**COMPRESSED, "config_groups": groups}


@pytest.mark.parametrize(
    ("config", "error", "reason"),
    [
        ({}, CorruptModelError, "'quant_method' must be a string"),
        ({"quant_method": 7}, CorruptModelError, "quant_method"),
        ({"quant_method": "hqq"}, UnsupportedModelError, "'hqq'; this build reads awq, "),
        ({"quant_method": "exl2"}, UnsupportedModelError, "ExLlamaV2"),
        ({**GPTQ, "bits": 5}, CorruptModelError, "'bits' must be 2, 3, 4 or 8; it is '5'"),
        ({**GPTQ, "bits": "4"}, CorruptModelError, "bits"),
        ({**GPTQ, "group_size": 0}, CorruptModelError, "group_size"),
        ({**GPTQ, "group_size": 1 << 60}, CorruptModelError, "group_size"),
        ({**GPTQ, "sym": "yes"}, CorruptModelError, "'sym' must be true or false"),
        ({**GPTQ, "dynamic": {"+:.*": {"bits": 5}}}, CorruptModelError, "dynamic: 'bits' must be"),
        ({**GPTQ, "dynamic": {".*": {"adapter": {}}}}, UnsupportedModelError, "changes 'adapter'"),
        ({**GPTQ, "dynamic": {".*": 8}}, CorruptModelError, "'.*' must be an object"),
        ({**MARLIN.config, "dynamic": {"+:.*": {}}}, UnsupportedModelError, "beside Marlin's"),
        ({**GPTQ, "dynamic": {"-:(a+)+$": {}}}, UnsupportedModelError, "dynamic: the pattern"),
        ({**GPTQ, "dynamic": ["-:lm"]}, CorruptModelError, "'dynamic' must be an object"),
        ({**GPTQ, "pack_dtype": "int8"}, CorruptModelError, "pack_dtype"),
        ({**GPTQ, "checkpoint_format": "bitblas"}, UnsupportedModelError, "bitblas"),
        ({**MARLIN.config, "bits": 8}, UnsupportedModelError, "bits 8"),
        ({**MARLIN.config, "desc_act": True}, UnsupportedModelError, "desc_act True"),
        ({**AWQ.config, "bits": 8}, CorruptModelError, "'bits' must be 4"),
        ({**AWQ.config, "version": "gemv"}, UnsupportedModelError, "'gemv'"),
        (
            {**AWQ.config, "version": None, "checkpoint_format": "gemv_fast"},
            UnsupportedModelError,
            "'gemv_fast'",
        ),
        ({**AWQ.config, "modules_to_not_convert": [7]}, CorruptModelError, "list of at most"),
        ({**AWQ.config, "modules_to_not_convert": "lm_head"}, CorruptModelError, "list of at"),
        ({**COMPRESSED, "format": "marlin-24"}, UnsupportedModelError, "marlin-24"),
        ({**COMPRESSED, "ignore": ["re:(a+)+b"]}, UnsupportedModelError, "pattern"),
        ({**COMPRESSED, "ignore": ["re:a"] * 999}, CorruptModelError, "at most 256 patterns"),
        ({**COMPRESSED, "transform_config": {"r": 1}}, UnsupportedModelError, "transform_config"),
        ({**COMPRESSED, "sparsity_config": {"format": "2:4"}}, UnsupportedModelError, "sparse"),
        ({**COMPRESSED, "config_groups": {}}, UnsupportedModelError, "a group with weights"),
        (with_groups({"weights": None}), UnsupportedModelError, "a group with weights"),
        (with_groups({}, {"format": "marlin-24"}), UnsupportedModelError, "marlin-24"),
        (with_targets("Linear", "Embedding"), UnsupportedModelError, "targets [Linear, Embedding]"),
        (with_targets(), UnsupportedModelError, "targets []"),
        (with_targets(7), CorruptModelError, "'targets' must be a list"),
        (with_weights(num_bits=3), CorruptModelError, "num_bits"),
        (with_weights(type="float"), CorruptModelError, "type"),
        (with_weights(strategy="block"), CorruptModelError, "strategy"),
        (with_weights(group_size=None), CorruptModelError, "group_size"),
        (with_weights(actorder="random"), CorruptModelError, "actorder"),
        (with_weights(dynamic=True), UnsupportedModelError, "dynamic"),
    ],
)
def test_what_cannot_be_read_is_refused_by_key(config, error, reason):
    with pytest.raises(error, match=re.escape(reason)) as caught:
        parse_quantization(config, "config.json: quantization_config")

    assert bool(caught.value.hint) == (error is UnsupportedModelError), "what to do instead"


_CONFIGS = {name: narrow.config for name, narrow in NARROW.items()} | {
    "awq": AWQ.config,
    "compressed": COMPRESSED,
    "compressed-groups": with_groups({}, {"targets": ["re:.*mlp.*"]}),
    "dynamic": {**GPTQ, "dynamic": {".*mlp.*": {"bits": 8}, "-:.*q_proj": {}}},
    "gptq": {**GPTQ, "meta": {"quantizer": ["gptqmodel:7.6.0"]}, "lm_head": True, "dynamic": None},
    "marlin": MARLIN.config,
    "old-awq": {"quant_method": "awq", "w_bit": 4, "q_group_size": 64},
}
_JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=9)
    | st.sampled_from(["group", "tensor", "block", "gptq_v2", "re:.*", "re:(a+)+$", 8, 64]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["weights", "format", "x"]), inner, max_size=3)
    ),
    max_leaves=6,
)


def with_value(config: Any, path: list[int], value: Any) -> Any:
    """Return a copy with one value replaced, at the place to which the numbers lead."""
    if not path or not isinstance(config, dict) or not config:
        return value
    key = sorted(config)[path[0] % len(config)]
    return {**config, key: with_value(config[key], path[1:], value)}


@given(
    name=st.sampled_from(sorted(_CONFIGS)),
    path=st.lists(st.integers(0, 20), min_size=1, max_size=4),
    value=_JSON,
)
@settings(max_examples=300, deadline=None)
def test_any_object_is_a_format_or_a_clear_error(name, path, value):
    config = with_value(_CONFIGS[name], path, value)
    quantization, message = None, ""
    try:
        quantization = parse_quantization(config, "x")
    except StartError as exc:
        message = exc.message

    assert (quantization is None) == bool(message)
    assert len(message) < 400
    if quantization is not None:
        source = WeightsSource(
            kind="safetensors", files=(), num_bytes=0, num_parameters=0, quantization=quantization
        )
        decoded = msgspec.json.decode(msgspec.json.encode(source), type=WeightsSource)
        assert decoded.quantization == quantization
        for format in formats_of(quantization, MODULES).values():
            with contextlib.suppress(ValueError):  # sizes that the format can't have
                assert format.tensors(128, 192)


@pytest.mark.parametrize(
    "config",
    [
        {**GPTQ, "dynamic": {r"-:.*\.mlp\..*": {}}},
        with_targets("re:.*self_attn.*"),
        with_targets("layers.0.self_attn.q_proj", "layers.1.self_attn.q_proj"),
    ],
    ids=["gptqmodel-skips", "pattern", "names"],
)
def test_a_part_of_the_modules_may_be_converted(config):
    quantization = parse_quantization(config, "x")

    assert list(formats_of(quantization, MODULES)) == [Q_PROJ]


@pytest.mark.parametrize(
    ("dynamic", "bits"),
    [
        ({"+:.*up_proj": {"bits": 8}}, {UP_PROJ: 8, Q_PROJ: 4}),
        ({".*up_proj": {"bits": 8}, "-:.*": {}}, {UP_PROJ: 8}),
        ({"-:.*up_proj": {}, "+:.*": {"bits": 8, "mse": 2.4}}, {Q_PROJ: 8}),
        ({".*(k|q)_proj$": {"bits": 2}, "+:.*": {"bits": 8}}, {UP_PROJ: 8, Q_PROJ: 2}),
    ],
)
def test_the_first_pattern_of_gptqmodels_dynamic_decides(dynamic, bits):
    quantization = parse_quantization({**GPTQ, "dynamic": dynamic}, "x")

    formats = formats_of(quantization, MODULES)
    assert {module: format.bits for module, format in formats.items()} == bits
    assert quantization.methods == ("gptq", "marlin")


@pytest.mark.parametrize(
    ("groups", "bits"),
    [
        ([{"targets": ["Linear"]}, {"targets": ["re:.*up_proj"]}], {UP_PROJ: 8, Q_PROJ: 4}),
        ([{"targets": ["re:.*q_proj"]}, {"targets": ["re:.*up_proj"]}], {UP_PROJ: 8, Q_PROJ: 4}),
        ([{"targets": ["Linear"], "weights": None}, {"targets": ["re:.*up.*"]}], {UP_PROJ: 8}),
        ([{"targets": ["re:.*q_proj"]}, {"targets": ["re:.*k_proj"]}], {Q_PROJ: 4}),
    ],
)
def test_names_in_config_groups_go_before_all_linear_layers(groups, bits):
    eight = {**COMPRESSED["config_groups"]["group_0"]["weights"], "num_bits": 8}
    config = with_groups(groups[0], {"weights": eight, **groups[1]})

    formats = formats_of(parse_quantization(config, "x"), MODULES)

    assert {module: format.bits for module, format in formats.items()} == bits


def test_older_files_of_autoawq_have_other_keys():
    old = {"zero_point": True, "q_group_size": 64, "w_bit": 4, "version": "GEMM"}

    assert parse_quantization(old, "quant_config.json", "awq").group_size == 64


def test_gptqmodels_zero_points_are_known_by_its_name():
    written = {**GPTQ, "sym": False, "meta": {"quantizer": ["gptqmodel:7.6.0"]}}

    quantization = parse_quantization(written, "x")

    assert isinstance(quantization, Gptq)
    assert quantization.borrows
    second = parse_quantization({**written, "checkpoint_format": "gptq_v2"}, "x")
    assert isinstance(second, Gptq)
    assert not second.borrows


@pytest.mark.parametrize(
    ("entry", "module", "is_meant"),
    [
        ("lm_head", "lm_head", True),
        ("q_proj", "model.layers.0.self_attn.q_proj", True),
        ("layers.1", "model.layers.1.mlp.up_proj", True),
        ("layers.1", "model.layers.11.mlp.up_proj", False),
        ("proj", "model.layers.1.mlp.up_proj", False),
        ("re:.*lm_head", "lm_head", True),
        (r"re:model\.layers\.1\..*", "model.layers.1.mlp.up_proj", True),
        (r"re:model\.layers\.1\..*", "model.layers.11.mlp.up_proj", False),
        ("re:.*mlp$", "model.layers.1.mlp.up_proj", False),
        ("re:^model.layers.*", "model.layers.1.mlp.up_proj", True),
        ("re:layers", "model.layers.1.mlp.up_proj", False),
        ("re:.*(up|gate)_proj$", "model.layers.1.mlp.up_proj", True),
        ("re:.*(?:q|k)_proj", "model.layers.1.mlp.up_proj", False),
        (r"re:.*\.(1|1(0|1))\..*", "model.layers.11.mlp.up_proj", True),
    ],
)
def test_a_list_means_whole_parts_of_names_and_simple_patterns(entry, module, is_meant):
    assert (module in ModuleNames([entry])) == is_meant


@given(
    pattern=st.lists(
        st.sampled_from(["a", "b", r"\.", ".", ".*", "$", "(a|b.)", "(?:a|(.|bb))"]), max_size=8
    ),
    text=st.text("ab.", max_size=9),
)
def test_patterns_match_as_regular_expressions_do(pattern, text):
    body = "".join(pattern)
    try:
        patterns_of(f"re:{body}")
    except ValueError:
        assert "$" in body[:-1] or body.endswith("\\$") or body.count("(") > 5
        return

    assert (text in ModuleNames([f"re:{body}"])) == bool(re.match(body, text))


@pytest.mark.parametrize("pattern", ["(a|b)+", "(a|b)*", r"\(a\)", "(?i)a", "(a", "(a|b)" * 7])
def test_other_parentheses_are_refused(pattern):
    with pytest.raises(ValueError, match="the pattern"):
        patterns_of(f"re:{pattern}")


def test_a_pattern_of_many_wildcards_takes_no_time():
    assert "a" * 200 not in ModuleNames(["re:" + ".*a" * 80 + "b$"])


# --quantize


def decide(config: dict[str, Any] | None, **options: Any) -> ResolvedConfig:
    quantization = None if config is None else parse_quantization(config, "x")
    model = model_facts(hidden_size=64, intermediate_size=128, head_dim=16)
    weights = msgspec.structs.replace(model.weights, quantization=quantization)
    return resolve(ServeOptions(**options), dataclasses.replace(model, weights=weights), hardware())


def decision(config: ResolvedConfig) -> tuple[str, str] | None:
    found = [each for each in config.decisions if each.name == "quantize"]
    return (found[0].value, found[0].reason) if found else None


@pytest.mark.parametrize(
    ("config", "asked", "told"),
    [
        (GPTQ, None, ("gptq", "the checkpoint's own")),
        (GPTQ, "gptq", ("gptq", "asked for")),
        (GPTQ, "marlin", ("gptq", "asked for")),
        (AWQ.config, "awq", ("awq", "asked for")),
        (AWQ.config, "marlin", ("awq", "asked for")),
        (MARLIN.config, "gptq", ("marlin", "asked for")),
        (COMPRESSED, "compressed-tensors", ("compressed-tensors", "asked for")),
        (None, None, None),
    ],
)
def test_the_checkpoint_decides_and_the_option_may_agree(config, asked, told):
    resolved = decide(config, quantize=asked)

    assert decision(resolved) == told
    assert (resolved.engine.weights.quantization is None) == (config is None)


@pytest.mark.parametrize(
    ("config", "asked", "reason"),
    [
        (GPTQ, "awq", "`quantize` is awq, but somebody/something is quantised with gptq"),
        (AWQ.config, "gptq", "gptq, but somebody/something is quantised with awq"),
        (COMPRESSED, "marlin", "marlin, but somebody/something is quantised with compressed"),
        (GPTQ, "gguf", "isn't a GGUF file"),
        (None, "gptq", "the weights of somebody/something aren't quantised"),
        (None, "marlin", "aren't quantised"),
    ],
)
def test_an_option_that_contradicts_the_checkpoint_is_refused(config, asked, reason):
    with pytest.raises(ArgumentError, match=reason):
        decide(config, quantize=asked)


def test_a_type_beside_a_quantised_checkpoint_is_refused():
    with pytest.raises(ArgumentError, match="Only 1 can be set between `dtype` and `quantize`"):
        decide(GPTQ, dtype="float16")


@pytest.mark.parametrize("asked", ["awq", "gptq", "marlin", "compressed-tensors"])
def test_a_gguf_file_takes_no_other_method(asked):
    model = model_facts()
    weights = msgspec.structs.replace(model.weights, kind="gguf")

    with pytest.raises(ArgumentError, match=f"`quantize` is {asked}, but .* is a GGUF file"):
        resolve(
            ServeOptions(quantize=asked), dataclasses.replace(model, weights=weights), hardware()
        )


def test_quantised_weights_are_counted_as_they_lie_in_memory():
    config = msgspec.structs.replace(CONFIG, hidden_size=512, intermediate_size=1024, head_dim=128)
    quantization = parse_quantization({**GPTQ, "group_size": 128}, "x")

    plain = weights_bytes(config, None, 2, packs=True)
    packed = weights_bytes(config, quantization, 2, packs=True)

    assert plain == num_parameters(config) * 2
    assert 0.25 < packed / plain < 0.35
    assert weights_bytes(config, quantization, 4, packs=False) == num_parameters(config) * 4


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        (
            {"group_size": 48},
            "model.layers.0.self_attn.q_proj .* group_size 48 doesn't divide its 128 input",
        ),
        (
            {"bits": 3, "group_size": 16},
            "q_proj .* 16 input features of 3 bits don't fill 32-bit words",
        ),
    ],
)
def test_sizes_that_a_format_cannot_have_are_refused_by_module(changes, reason):
    hidden = 128 if "bits" not in changes else 16
    config = msgspec.structs.replace(CONFIG, hidden_size=hidden, intermediate_size=128, head_dim=32)

    with pytest.raises(CorruptModelError, match=reason):
        stored_tensors(config, parse_quantization({**GPTQ, **changes}, "x"))
