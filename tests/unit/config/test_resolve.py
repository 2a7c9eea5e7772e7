from __future__ import annotations

import dataclasses
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.builders.serving import GIB, hardware, memory_for_tokens, model_facts
from tgi_cli.errors import ArgumentError, CapacityError, UnsupportedModelError
from tgi_cli.runtime.config.model_config import RopeScaling
from tgi_cli.runtime.config.options import ServeOptions
from tgi_cli.runtime.config.resolve import resolve
from tgi_cli.runtime.config.resolved import ResolvedConfig


def decide(memory_bytes: int = 4 * GIB, **options: Any) -> ResolvedConfig:
    return resolve(ServeOptions(**options), model_facts(), hardware(memory_bytes=memory_bytes))


def reason_for(config: ResolvedConfig, name: str) -> str:
    return next(decision.reason for decision in config.decisions if decision.name == name)


def test_limits_default_to_what_the_model_was_made_for() -> None:
    limits = decide().router.limits

    assert limits.max_total_tokens == 2_047
    assert limits.max_input_tokens == 2_046


def test_the_tokenizers_longest_text_bounds_the_total() -> None:
    model = model_facts(model_max_length=1_001)

    config = resolve(ServeOptions(), model, hardware())

    assert config.router.limits.max_total_tokens == 1_001
    assert reason_for(config, "max_total_tokens") == "the tokenizer's longest text"


def test_memory_bounds_the_total_where_it_is_short() -> None:
    model = model_facts()
    memory_bytes = memory_for_tokens(330, model)

    config = resolve(ServeOptions(), model, hardware(memory_bytes=memory_bytes))

    assert config.engine.num_blocks == 10  # 330 tokens, whole blocks of 32
    assert config.router.limits.max_total_tokens == 320
    assert config.router.max_batch_total_tokens == 320
    assert reason_for(config, "max_total_tokens") == "what the KV cache holds"


def test_the_cache_is_no_larger_than_what_the_limits_can_use() -> None:
    config = decide(max_concurrent_requests=3, max_best_of=1, max_total_tokens=33)

    assert config.engine.num_blocks == 6  # three sequences of 33 tokens, two blocks each
    assert config.router.max_batch_total_tokens == 192


def test_a_bound_on_the_cache_is_kept() -> None:
    config = decide(max_batch_total_tokens=1_000)

    assert config.router.max_batch_total_tokens == 1_000
    assert config.engine.num_blocks == 32
    assert config.router.limits.max_total_tokens == 1_000


def test_a_cache_that_does_not_fit_is_made_smaller_with_a_warning() -> None:
    model = model_facts()

    config = resolve(
        ServeOptions(max_batch_total_tokens=10**9),
        model,
        hardware(memory_bytes=memory_for_tokens(330, model)),
    )

    assert config.router.max_batch_total_tokens == 320
    assert "320 fit the memory" in config.warnings[0]


def test_prefill_is_the_usual_value_or_what_the_model_takes() -> None:
    assert decide().router.max_batch_prefill_tokens == 2_047
    long = resolve(ServeOptions(), model_facts(max_position_embeddings=9_001), hardware())
    assert long.router.max_batch_prefill_tokens == 4_096


def test_a_prompt_may_be_longer_than_one_forward_pass() -> None:
    config = decide(max_batch_prefill_tokens=77, max_input_tokens=1_500)

    assert config.engine.max_step_tokens == 77


def test_dtype_is_the_checkpoints_unless_asked_for() -> None:
    assert decide().engine.dtype == "bfloat16"
    assert decide(dtype="float16").engine.dtype == "float16"


def test_a_batch_limit_is_a_hard_one() -> None:
    config = decide(max_batch_size=5)

    assert config.engine.max_running == 5


def test_a_container_id_as_hostname_is_replaced_and_told() -> None:
    config = decide(hostname="3f2a9c0d11be")

    assert config.router.hostname == "0.0.0.0"
    assert config.warnings == ("Invalid hostname, defaulting to 0.0.0.0",)


@pytest.mark.parametrize("hostname", ["127.0.0.1", "::1", "::"])
def test_addresses_are_kept(hostname: str) -> None:
    assert decide(hostname=hostname).router.hostname == hostname


def test_the_deprecated_input_limit_works_and_is_told() -> None:
    config = decide(max_input_length=99)

    assert config.router.limits.max_input_tokens == 99
    assert "deprecated" in config.warnings[0]


def test_lengths_beyond_the_models_own_are_told() -> None:
    assert "beyond the model's own 2047" in decide(max_total_tokens=3_000).warnings[0]


def test_dynamic_scaling_is_refused_beyond_the_trained_length() -> None:
    model = model_facts(rope_scaling=RopeScaling(kind="dynamic", factor=2.0))

    with pytest.raises(UnsupportedModelError, match="dynamic"):
        resolve(ServeOptions(max_total_tokens=3_000), model, hardware())


@pytest.mark.parametrize(
    ("options", "text"),
    [
        (
            {"num_shard": 2},
            "`num_shard` is 2, but this version runs a model in one shard",
        ),
        (
            {"device": "cuda"},
            "`device` is cuda, but this machine shows no GPU",
        ),
        ({"max_total_tokens": 1}, "`max_total_tokens` must be > 1"),
    ],
)
def test_what_this_build_cannot_do_is_refused(options: dict[str, Any], text: str) -> None:
    with pytest.raises(ArgumentError) as caught:
        decide(**options)

    assert caught.value.message == text


@pytest.mark.parametrize(
    "options", [{"sharded": False}, {"num_shard": 1}, {"sharded": False, "num_shard": 1}]
)
def test_one_shard_may_be_asked_for(options: dict[str, Any]) -> None:
    assert decide(**options).engine.num_blocks > 0


def test_a_request_that_cannot_fit_is_refused() -> None:
    model = model_facts()

    with pytest.raises(CapacityError) as caught:
        resolve(
            ServeOptions(max_total_tokens=321),
            model,
            hardware(memory_bytes=memory_for_tokens(330, model)),
        )

    assert caught.value.message == "Not enough memory to handle `max_total_tokens=321`"


def test_weights_that_do_not_fit_are_refused_with_both_sizes() -> None:
    with pytest.raises(CapacityError, match=r"needs 0\.0 MiB for its weights"):
        decide(memory_bytes=1_000)


ASKED = (
    "max_input_tokens",
    "max_input_length",
    "max_total_tokens",
    "max_batch_prefill_tokens",
    "max_batch_total_tokens",
    "max_batch_size",
    "num_shard",
    "cpu_threads",
)
ODD_COUNTS = st.one_of(st.none(), st.integers(0, 40), st.integers(0, 3_000), st.just(10**15))


@settings(max_examples=300, deadline=None)
@given(
    asked=st.fixed_dictionaries(dict.fromkeys(ASKED, ODD_COUNTS)),
    max_concurrent_requests=st.integers(0, 1_000),
    max_best_of=st.integers(0, 5),
    trained=st.integers(1, 5_000),
    model_max_length=st.one_of(st.none(), st.integers(1, 5_000)),
    memory_bytes=st.integers(0, 1 << 33),
)
def test_any_options_are_refused_or_give_limits_that_fit_together(
    asked: dict[str, int | None],
    max_concurrent_requests: int,
    max_best_of: int,
    trained: int,
    model_max_length: int | None,
    memory_bytes: int,
) -> None:
    options = ServeOptions(
        max_concurrent_requests=max_concurrent_requests,
        max_best_of=max_best_of,
        **asked,  # type: ignore[arg-type]
    )
    model = model_facts(max_position_embeddings=trained, model_max_length=model_max_length)

    try:
        config = resolve(options, model, hardware(memory_bytes=memory_bytes))
    except (ArgumentError, CapacityError):
        return

    router, engine, limits = config.router, config.engine, config.router.limits
    assert 0 < limits.max_input_tokens < limits.max_total_tokens <= router.max_batch_total_tokens
    assert router.max_batch_total_tokens <= engine.num_blocks * engine.block_size
    assert 0 < router.max_batch_prefill_tokens <= router.max_batch_total_tokens
    assert 0 < engine.max_running <= engine.num_blocks
    assert engine.num_threads > 0
    assert engine.max_total_tokens == limits.max_total_tokens
    bound = options.max_batch_total_tokens
    assert bound is None or router.max_batch_total_tokens <= bound


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"quantize": "awq"}, "aren't quantised"),
        ({"quantize": "exl2"}, "ExLlamaV2"),
        ({"quantize": "gguf"}, "isn't a GGUF file"),
        ({"kv_cache_dtype": "fp8_e5m2"}, "which needs a GPU"),
    ],
)
def test_formats_that_this_build_cannot_do_are_refused(options: dict[str, Any], text: str) -> None:
    with pytest.raises(ArgumentError) as caught:
        decide(**options)

    assert text in caught.value.message


def test_the_cache_has_the_weights_type_unless_another_is_asked_for() -> None:
    narrow, wide = decide(), decide(kv_cache_dtype="float32")

    assert narrow.engine.kv_cache_dtype == "bfloat16"
    assert wide.engine.kv_cache_dtype == "float32"
    assert reason_for(narrow, "kv_cache_dtype") == "as the weights"


def test_a_gguf_files_own_grid_is_counted_as_it_lies_in_memory() -> None:
    model = model_facts()
    weights = msgspec.structs.replace(model.weights, kind="gguf", num_bytes_on_grid=GIB)
    model = dataclasses.replace(model, weights=weights)

    with pytest.raises(CapacityError):
        resolve(ServeOptions(quantize="gguf"), model, hardware(memory_bytes=GIB))
    resolve(ServeOptions(), model, hardware(memory_bytes=GIB))
