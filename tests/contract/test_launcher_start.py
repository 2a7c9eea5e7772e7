"""Start-up errors and what each option decides: spec/launcher-options.md sections 3 and 4."""

from __future__ import annotations

import dataclasses
from typing import Any

import msgspec
import pytest
from typer.testing import CliRunner

from tests.builders.serving import (
    GIB,
    H100,
    gpu_model,
    gpu_stack,
    hardware,
    memory_for_tokens,
    model_facts,
)
from tgi_cli.app import app
from tgi_cli.errors import ArgumentError, CapacityError
from tgi_cli.runtime.config.check_options import warnings_of
from tgi_cli.runtime.config.options import ServeOptions
from tgi_cli.runtime.config.resolve import resolve
from tgi_cli.runtime.config.resolved import ResolvedConfig


def decide(memory_bytes: int = 4 * GIB, **options: Any) -> ResolvedConfig:
    return resolve(ServeOptions(**options), model_facts(), hardware(memory_bytes=memory_bytes))


BOTH_INPUT_LIMITS = (
    "Both `max_input_tokens` (7) and `max_input_length` (8) are set. Please define only "
    "`max_input_tokens` as `max_input_length is deprecated for naming consistency."
)
DTYPE_AND_QUANTIZE = (
    "Only 1 can be set between `dtype` and `quantize`, as they both decide how goes the final "
    "model."
)
WHOLE = {"prefill_chunking": False}
START_ERRORS: list[tuple[dict[str, Any], str]] = [
    ({"max_input_tokens": 7, "max_input_length": 8}, BOTH_INPUT_LIMITS),
    (
        {"max_input_tokens": 9, "max_total_tokens": 9},
        "`max_input_tokens`(9) must be < `max_total_tokens`(9)",
    ),
    ({"max_input_tokens": 2_047}, "`max_input_tokens` must be < `max_total_tokens`"),
    (
        {"max_batch_prefill_tokens": 99, "max_input_tokens": 100, **WHOLE},
        "`max_batch_prefill_tokens` must be >= `max_input_tokens`. Given: 99 and 100",
    ),
    (
        {"max_batch_prefill_tokens": 99, **WHOLE},
        "`max_batch_prefill_tokens` must be >= `max_input_tokens`. Given: 99 and 2046",
    ),
    (
        {"max_batch_prefill_tokens": 65, "max_batch_total_tokens": 64},
        "`max_batch_prefill_tokens` must be <= `max_batch_total_tokens`. Given: 65 and 64",
    ),
    (
        {"max_total_tokens": 65, "max_batch_total_tokens": 64},
        "`max_total_tokens` must be <= `max_batch_total_tokens`. Given: 65 and 64",
    ),
    ({"validation_workers": 0}, "`validation_workers` must be > 0"),
    ({"max_batch_size": 0}, "`max_batch_size` must be > 0"),
    ({"cpu_threads": 1_025}, "`cpu_threads` must be <= 1024"),
    ({"api_key": " "}, "`api_key` is empty"),
    ({"model_id": ""}, "`model_id` is empty"),
    ({"cors_allow_origin": ("",)}, "`cors_allow_origin` is empty"),
    ({"sharded": True, "num_shard": 1}, "`sharded` is true but `num_shard` <= 1"),
    ({"num_shard": 0}, "`num_shard` cannot be < 1"),
    ({"sharded": True}, "`sharded` is true but only found 0 CUDA devices"),
    (
        {"sharded": True, "cuda_visible_devices": "3"},
        "`sharded` is true but only found 1 CUDA devices",
    ),
    (
        {"quantize": "exl2", "num_shard": 2},
        "Sharding is currently not supported with `exl2` quantization",
    ),
    ({"ngrok": True}, "`ngrok-authtoken` must be set when using ngrok tunneling"),
    (
        {"ngrok": True, "ngrok_authtoken": "t"},
        "`ngrok-edge` must be set when using ngrok tunneling",
    ),
    (
        {"ngrok": True, "ngrok_authtoken": "t", "ngrok_edge": "e"},
        "`ngrok` is set, but this server opens no tunnels",
    ),
    ({"lora_adapters": ("a@b@c",)}, "Invalid LoRA adapter format: a@b@c"),
    ({"lora_adapters": ("a=b=c",)}, "Invalid LoRA adapter format: a=b=c"),
    ({"lora_adapters": ("=b",)}, "Invalid LoRA adapter format: =b"),
    ({"dtype": "float16", "quantize": "awq"}, DTYPE_AND_QUANTIZE),
    ({"dtype": "float16", "quantize": "fp8"}, DTYPE_AND_QUANTIZE),
]


@pytest.mark.parametrize(("options", "text"), START_ERRORS)
def test_a_start_up_error_has_its_exact_text(options: dict[str, Any], text: str) -> None:
    with pytest.raises(ArgumentError) as caught:
        decide(**options)

    assert caught.value.message == text


def test_bitsandbytes_points_to_eetq() -> None:
    [warning] = decide(quantize="bitsandbytes").warnings

    assert warning.startswith("Bitsandbytes is deprecated, use `eetq` instead")


@pytest.mark.parametrize("quantize", ["bitsandbytes", "bitsandbytes-nf4", "bitsandbytes-fp4"])
def test_dtype_goes_with_bitsandbytes(quantize: str) -> None:
    config = decide(dtype="float16", quantize=quantize)

    assert config.engine.dtype == "float16"
    assert config.engine.weights.quantization is not None


def test_prompts_in_chunks_may_be_longer_than_a_forward_pass() -> None:
    config = decide(max_batch_prefill_tokens=99, max_input_tokens=100)

    assert config.router.max_batch_prefill_tokens == 99


def test_a_request_that_cannot_fit_has_its_text() -> None:
    model = model_facts()
    machine = hardware(memory_bytes=memory_for_tokens(330, model))

    with pytest.raises(CapacityError) as caught:
        resolve(ServeOptions(max_total_tokens=321), model, machine)

    assert caught.value.message == "Not enough memory to handle `max_total_tokens=321`"


@pytest.mark.parametrize(
    ("args", "exit_code", "line"),
    [
        (("--max-batch-size", "0"), 1, 'Error: ArgumentValidation("`max_batch_size` must be > 0")'),
        (
            ("--api-key-file", "/no/such"),
            1,
            "Error: ArgumentValidation(\"the file of API keys can't be used",
        ),
        (("--model-id", "/no/such.gguf"), 1, "Error: /no/such.gguf: no such file or folder."),
        (("--no-such-flag",), 2, "Error: No such option: --no-such-flag"),
    ],
)
def test_a_start_that_fails_says_why_and_ends_with_its_code(
    args: tuple[str, ...], exit_code: int, line: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("MODEL_ID", "HOSTNAME", "PORT"):
        monkeypatch.delenv(name, raising=False)

    result = CliRunner().invoke(app, ["serve", *args])

    assert result.exit_code == exit_code
    assert any(written.startswith(line) for written in result.output.splitlines())


# Section 4: what an option decides

EFFECTS: list[tuple[dict[str, Any], str, object]] = [
    ({"dtype": "float16"}, "engine.dtype", "float16"),
    ({"kv_cache_dtype": "float32"}, "engine.kv_cache_dtype", "float32"),
    ({}, "engine.model.rope_scaling", None),
    ({"rope_factor": 2.0}, "engine.model.rope_scaling.kind", "linear"),
    ({"rope_factor": 2.0}, "engine.model.rope_scaling.factor", 2.0),
    ({"rope_scaling": "linear"}, "engine.model.rope_scaling.factor", 1.0),
    ({"rope_scaling": "dynamic"}, "engine.model.rope_scaling.kind", "dynamic"),
    ({"disable_grammar_support": True}, "router.supports_grammars", False),
    ({"disable_grammar_support": True}, "engine.tokenizer_json", ""),
    ({}, "engine.tokenizer_json", "{}"),
    ({"watermark_gamma": 0.25}, "engine.watermark_gamma", 0.25),
    ({"watermark_gamma": 0.25}, "router.watermark_gamma", 0.25),
    ({"watermark_delta": -1.5}, "engine.watermark_delta", -1.5),
    ({"watermark_delta": -1.5}, "router.watermark_delta", -1.5),
    ({"disable_custom_kernels": True}, "engine.custom_kernels", False),
    ({"max_concurrent_requests": 7}, "router.limits.max_concurrent_requests", 7),
    ({"max_best_of": 7}, "router.limits.max_best_of", 7),
    ({"max_stop_sequences": 7}, "router.limits.max_stop_sequences", 7),
    ({"max_top_n_tokens": 7}, "router.limits.max_top_n_tokens", 7),
    ({"max_input_tokens": 7}, "router.limits.max_input_tokens", 7),
    ({"max_input_length": 7}, "router.limits.max_input_tokens", 7),
    ({"max_total_tokens": 77}, "router.limits.max_total_tokens", 77),
    ({"max_total_tokens": 77}, "router.limits.max_input_tokens", 76),
    ({"strict_lengths": True}, "router.limits.strict_lengths", True),
    ({"max_client_batch_size": 7}, "router.limits.max_client_batch_size", 7),
    ({"payload_limit": 7}, "router.limits.payload_limit_bytes", 7),
    ({"max_batch_prefill_tokens": 77}, "engine.max_step_tokens", 77),
    ({"prefill_chunking": False}, "engine.prefill_chunking", False),
    ({"prefill_chunking": False}, "engine.max_step_tokens", 2_047),  # whole prompts
    ({}, "engine.max_step_tokens", 512),  # chunks
    ({"max_batch_total_tokens": 77}, "router.max_batch_total_tokens", 77),
    ({"waiting_served_ratio": 1.2}, "engine.waiting_served_ratio", 1.2),
    ({"max_waiting_tokens": 7}, "engine.max_waiting_tokens", 7),
    ({"max_batch_size": 7}, "engine.max_running", 7),
    ({"validation_workers": 7}, "router.validation_workers", 7),
    ({"prefix_caching": False}, "engine.prefix_caching", False),
    ({}, "engine.prefix_caching", True),
    ({"cpu_threads": 7}, "engine.num_threads", 7),
    ({"verify_determinism": True}, "engine.verify_determinism", True),
    ({"hostname": "::1"}, "router.hostname", "::1"),
    ({"hostname": "3f2a9c0d11be"}, "router.hostname", "0.0.0.0"),
    ({"port": 7}, "router.port", 7),
    ({}, "router.prometheus_port", 9000),
    ({"prometheus_port": 0}, "router.prometheus_port", None),
    ({"prometheus_port": 3000}, "router.prometheus_port", None),  # the main port has them
    ({"api_key": "k"}, "router.api_key", "k"),
    ({"api_key_file": "k.txt"}, "router.api_key_file", "k.txt"),
    ({"protect_chat_tokenize": True}, "router.protects_chat_tokenize", True),
    ({"cors_allow_origin": ("o",)}, "router.cors_allow_origin", ("o",)),
    ({"openai_strict": True}, "router.openai_strict", True),
    ({"graceful_termination_timeout": 7}, "router.graceful_termination_timeout_s", 7.0),
    ({"json_output": True}, "engine.log.json", True),
    ({"log_level": "debug"}, "router.log.level", "debug"),
    ({"log_colorize": False}, "engine.log.colour", False),
    ({"otlp_endpoint": "http://c"}, "router.otlp_endpoint", "http://c"),
    ({"otlp_service_name": "x"}, "router.otlp_service_name", "x"),
    ({}, "router.compute_type", "gpu+optimized"),
    ({"compute_type": "x"}, "router.compute_type", "x"),
    ({"docker_label": "x"}, "router.docker_label", "x"),
    ({"build_sha": "x"}, "router.build_sha", "x"),
    ({"aip_predict_route": "/p"}, "router.vertex_predict_route", "/p"),
    ({"aip_health_route": "/h"}, "router.vertex_health_route", "/h"),
]


@pytest.mark.parametrize(
    ("options", "path", "expected"), EFFECTS, ids=lambda value: str(value)[:60]
)
def test_an_option_decides(options: dict[str, Any], path: str, expected: object) -> None:
    value: Any = decide(**options)

    for name in path.split("."):
        value = getattr(value, name)

    assert value == expected


def test_a_share_of_the_memory_makes_a_smaller_cache() -> None:
    model = model_facts()
    memory_bytes = memory_for_tokens(1_000, model)
    options = ServeOptions(cuda_memory_fraction=0.8)

    whole = resolve(ServeOptions(), model, hardware(memory_bytes=memory_bytes))
    share = resolve(options, model, hardware(memory_bytes=memory_bytes))

    assert 0 < share.engine.num_blocks < whole.engine.num_blocks


def test_torch_in_place_of_kernels_leaves_less_room_for_the_cache() -> None:
    model = model_facts()
    machine = hardware(memory_bytes=2 * memory_for_tokens(330, model))

    native = resolve(ServeOptions(), model, machine)
    torch = resolve(ServeOptions(disable_custom_kernels=True), model, machine)

    assert torch.engine.num_blocks < native.engine.num_blocks  # its weights are float32
    assert "custom_kernels" in {decision.name for decision in torch.decisions}


def test_a_longer_context_by_rope_scaling_is_not_warned_of() -> None:
    scaled = decide(rope_factor=2.0, max_total_tokens=4_000)
    plain = decide(max_total_tokens=4_000)

    assert scaled.warnings == ()
    assert "beyond the model's own" in plain.warnings[0]


def test_a_revision_of_local_files_is_told() -> None:
    model = dataclasses.replace(model_facts(), sha=None)

    config = resolve(ServeOptions(revision="main"), model, hardware())

    assert config.warnings == ("`revision` has no effect: the model's files are local",)


def test_gpus_that_no_shard_uses_are_told() -> None:
    machine = hardware(gpus=gpu_stack(H100, H100))

    config = resolve(ServeOptions(), gpu_model(), machine)

    assert config.engine.device == "cuda"
    assert config.warnings[0].startswith("GPUs are visible (2), but")


def test_the_compute_type_is_the_drivers_name_for_the_gpu() -> None:
    machine = hardware(gpus=gpu_stack(H100, H100))

    config = resolve(ServeOptions(), model_facts(), machine)

    assert config.router.compute_type == "1-nvidia-h100-80gb-hbm3"


@pytest.mark.parametrize("name", ["waiting_served_ratio", "max_waiting_tokens"])
def test_admission_options_count_where_prompts_are_computed_whole(name: str) -> None:
    options = ServeOptions(prefill_chunking=False, **{name: 7})  # type: ignore[arg-type]

    assert list(warnings_of(options)) == []


def test_every_decision_goes_to_an_engine_and_a_router_as_json() -> None:
    config = decide(api_key="k", rope_factor=2.0)

    encoded = msgspec.json.encode(config)

    assert msgspec.json.decode(encoded, type=ResolvedConfig) == config
