"""Quantised checkpoints compute what plain ones of the same numbers do, in fp32."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch

from tests.builders.model import engine_config, make_runner, prompt_logits
from tests.builders.quantized import (
    AWQ,
    MARLIN,
    Recipe,
    change_config,
    compressed,
    gptq,
    split_in_two,
    write_quantized,
)
from tgi_cli.kernels import decoder, native
from tgi_cli.kernels.paged_attention import choose
from tgi_cli.runtime.config.resolved import EngineConfig
from tgi_cli.runtime.config.stored_tensors import weights_bytes
from tgi_cli.runtime.engine.determinism import Determinism
from tgi_cli.runtime.hub.locate import locate_model
from tgi_cli.runtime.models.loader import load_model

PROMPT = [(131 * i) % 301 for i in range(37)]
needs_native = pytest.mark.skipif(
    not native.is_available(), reason="without the native library torch promises nothing"
)
RECIPES = {
    "awq": AWQ,
    "gptq": gptq(),
    "gptq-2-bits": gptq(2, version=2, sym=False),
    "gptq-3-bits": gptq(3),
    "gptq-8-bits": gptq(8),
    "gptq-8-bits-asym": gptq(8, sym=False),
    "gptq-asym": gptq(sym=False),
    "gptq-v2-asym": gptq(version=2, sym=False),
    "gptq-one-group": gptq(group_size=-1),
    "marlin": MARLIN,
    "compressed-int4": compressed(4, is_symmetric=True),
    "compressed-int4-asym": compressed(4, is_symmetric=False),
    "compressed-int8": compressed(8, is_symmetric=True),
    "compressed-channel": compressed(4, is_symmetric=True, strategy="channel"),
}
ACT_ORDER = gptq(version=2, sym=False, order="one")
ACT_ORDERS = gptq(order="many")
PARTLY_AWQ = dataclasses.replace(AWQ, config={**AWQ.config, "modules_to_not_convert": ["q_proj"]})
each_recipe = pytest.mark.parametrize("recipe", RECIPES.values(), ids=RECIPES)


def config_of(folder: Path) -> EngineConfig:
    return engine_config(
        locate_model(str(folder)), max_total_tokens=128, num_blocks=60, kv_cache_dtype="float32"
    )


def logits_of(folder: Path) -> torch.Tensor:
    return prompt_logits(config_of(folder), PROMPT, 16)


def assert_alike(folders: tuple[Path, Path]) -> None:
    """Codes are summed before they are scaled: the same sums, rounded elsewhere.

    Random weights of 8 bits are large, and make attention so sharp that a rounding is seen.
    """
    packed, plain = map(logits_of, folders)
    assert bool(plain.isfinite().all())
    assert (packed - plain).norm() / plain.norm() < 1e-3


def with_groups(**groups: tuple[Recipe, str]) -> Recipe:
    """Return compressed-tensors' settings for several sets of modules, by their targets."""
    usual = compressed(4, is_symmetric=True)
    settings = {
        name: {**recipe.config["config_groups"]["group_0"], "targets": [target]}
        for name, (recipe, target) in groups.items()
    }
    return dataclasses.replace(usual, config={**usual.config, "config_groups": settings})


INT8 = compressed(8, is_symmetric=True, strategy="channel")
GROUPS = with_groups(
    attention=(compressed(4, is_symmetric=True), "Linear"), mlp=(INT8, "re:.*mlp.(gate|up|down)_.*")
)
EIGHT_BITS = gptq(8, sym=False, group_size=32)
DYNAMIC = gptq(dynamic={
    "-:.*layers.1.*o_proj": {},
    "+:.*mlp.*": {"bits": 8, "sym": False, "group_size": 32, "damp_percent": 0.1},
    ".*": {},
})  # fmt: skip
HALF_OF_A_PRODUCT = gptq(dynamic={".*gate_proj": {"bits": 8, "sym": False, "group_size": 32}})


@needs_native
@pytest.mark.parametrize(
    ("recipe", "others", "plain_parts", "num_dequantized"),
    [
        (GROUPS, {"mlp": INT8}, (), 0),
        (DYNAMIC, {"mlp": EIGHT_BITS}, ("layers.1.self_attn.o_proj",), 0),
        (HALF_OF_A_PRODUCT, {"gate_proj": EIGHT_BITS}, (), 4),
    ],
    ids=["config-groups", "dynamic", "half-of-a-product"],
)
def test_modules_with_settings_of_their_own_are_read_by_them(
    recipe, others, plain_parts, num_dequantized, tmp_path, caplog
):
    folders = write_quantized(tmp_path, recipe, others=others, plain_parts=plain_parts)

    assert_alike(folders)

    assert (f"event=dequantised projections={num_dequantized}" in caplog.text) == bool(
        num_dequantized
    )


def assert_as_planned(folder: Path) -> None:
    config = config_of(folder)
    model = config.model
    planned = weights_bytes(model, config.weights.quantization, 2, packs=True)
    loaded = load_model(
        model,
        config.weights,
        config.dtype,
        choose(model.num_heads, model.num_kv_heads, model.head_dim),
    )
    assert loaded.num_bytes <= planned < 1.1 * loaded.num_bytes


@needs_native
@each_recipe
def test_a_format_computes_what_its_plain_twin_does(recipe: Recipe, tmp_path: Path) -> None:
    assert_alike(write_quantized(tmp_path, recipe))


@needs_native
@pytest.mark.parametrize("recipe", [ACT_ORDER, ACT_ORDERS], ids=["alike", "unlike"])
def test_act_order_adds_the_same_products_in_another_order(recipe: Recipe, tmp_path: Path) -> None:
    packed, plain = map(logits_of, write_quantized(tmp_path, recipe))

    assert (packed - plain).norm() / plain.norm() < 1e-5


@needs_native
@pytest.mark.parametrize(
    ("recipe", "plain_parts"),
    [
        (AWQ, ()),
        (gptq(8), ()),
        (gptq(8, sym=False), ()),
        (ACT_ORDER, ()),
        (compressed(4, is_symmetric=True), ()),
        (PARTLY_AWQ, ("q_proj",)),
    ],
    ids=["awq", "gptq-8-bits", "gptq-8-bits-asym", "act-order", "compressed", "awq-but-q"],
)
def test_weights_take_the_memory_that_was_planned(
    recipe: Recipe, plain_parts: tuple[str, ...], tmp_path: Path
) -> None:
    folder, _ = write_quantized(
        tmp_path, recipe, plain_parts=plain_parts, vocab_size=320, dtype=torch.float16
    )

    assert_as_planned(folder)


@needs_native
@pytest.mark.parametrize(
    ("recipe", "others"),
    [(GROUPS, {"mlp": INT8}), (HALF_OF_A_PRODUCT, {"gate_proj": EIGHT_BITS})],
    ids=["config-groups", "half-of-a-product"],
)
def test_modules_with_settings_of_their_own_are_counted_by_them(recipe, others, tmp_path):
    folder, _ = write_quantized(
        tmp_path, recipe, others=others, vocab_size=320, dtype=torch.float16
    )

    assert_as_planned(folder)


@needs_native
def test_act_order_has_the_same_bits_in_one_call_and_layer_by_layer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    packed, _ = write_quantized(tmp_path, ACT_ORDER)

    in_one_call = logits_of(packed)
    monkeypatch.setattr(decoder, "can_run", lambda layers: False)
    one_by_one = logits_of(packed)

    assert torch.equal(in_one_call, one_by_one)


@pytest.mark.parametrize(
    ("recipe", "plain_parts", "num_told"),
    [
        (gptq(order="uneven"), (), 14),
        (ACT_ORDERS, (), 10),  # q, k, v, gate and up of two layers
        (PARTLY_AWQ, ("q_proj",), 4),  # k and v
        (AWQ, (), 0),
    ],
    ids=["uneven", "unlike", "awq-but-q", "awq"],
)
def test_what_no_grid_holds_is_told(
    recipe: Recipe,
    plain_parts: tuple[str, ...],
    num_told: int,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    config = config_of(write_quantized(tmp_path, recipe, plain_parts=plain_parts)[0])

    make_runner(config)

    assert (f"event=dequantised projections={num_told}:" in caplog.text) == (num_told > 0)
    assert ("event=dequantised" in caplog.text) == (num_told > 0)


@needs_native
def test_biases_stay_with_their_projections(tmp_path: Path) -> None:
    assert_alike(write_quantized(tmp_path, AWQ, family="qwen2"))


@needs_native
def test_sizes_and_files_may_be_of_any_number(tmp_path: Path) -> None:
    packed, plain = write_quantized(tmp_path, AWQ, head_dim=64)  # not hidden size / heads
    split_in_two(packed)

    assert_alike((packed, plain))


@needs_native
def test_a_tied_head_stays_plain(tmp_path: Path) -> None:
    assert_alike(write_quantized(tmp_path, AWQ, tie_word_embeddings=True))


@needs_native
@pytest.mark.parametrize("part", ["q_proj", "layers.1", "mlp"])
def test_modules_that_are_not_converted_stay_plain(part: str, tmp_path: Path) -> None:
    packed, plain = write_quantized(tmp_path, AWQ, plain_parts=(part,))
    change_config(packed, quantization_config={**AWQ.config, "modules_to_not_convert": [part]})

    assert_alike((packed, plain))


@needs_native
def test_a_quantised_head_is_served(tmp_path: Path) -> None:
    recipe = gptq(lm_head=True)

    assert_alike(write_quantized(tmp_path, recipe, vocab_size=320, quantized=("_proj", "lm_head")))


@needs_native
@pytest.mark.parametrize(
    "recipe",
    [AWQ, gptq(3), ACT_ORDER, compressed(8, is_symmetric=True)],
    ids=["awq", "gptq-3-bits", "gptq-act-order", "compressed-int8"],
)
def test_rows_dont_depend_on_their_company(recipe: Recipe, tmp_path: Path) -> None:
    config = config_of(write_quantized(tmp_path, recipe)[0])

    Determinism(make_runner(config), config, num_requests=5).verify()


def test_torch_computes_what_the_kernels_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    packed, plain = write_quantized(tmp_path, ACT_ORDER)
    expected = logits_of(plain)
    monkeypatch.setattr(native, "is_available", lambda: False)

    logits = logits_of(packed)

    assert (logits - expected).norm() / expected.norm() < 1e-5
