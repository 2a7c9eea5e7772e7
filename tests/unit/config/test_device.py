"""Where a model is computed: each thing that can be missing is named, and what was chosen."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from tests.builders.serving import GIB, H100, MI300X, gpu_model, gpu_stack, hardware, model_facts
from tgi_cli.errors import ArgumentError
from tgi_cli.kernels import devices
from tgi_cli.runtime.config.device import choose_device, machine_obstacle
from tgi_cli.runtime.config.facts import DriverFacts, GpuFacts, GpuStack
from tgi_cli.runtime.config.options import ServeOptions
from tgi_cli.runtime.config.resolve import resolve
from tgi_cli.runtime.config.resolved import ResolvedConfig

T4 = GpuFacts("Tesla T4", "sm_75", 15 * GIB)

MISSING = [
    (GpuStack(), "this machine shows no GPU"),
    (
        gpu_stack(driver=DriverFacts(error="libcuda.so.1 can't be loaded")),
        "NVIDIA's driver can't be used: libcuda.so.1 can't be loaded",
    ),
    (
        gpu_stack(driver=DriverFacts()),
        "NVIDIA's driver lets this process use no GPU (see CUDA_VISIBLE_DEVICES)",
    ),
    (
        gpu_stack(T4),
        "Tesla T4 is sm_75; the kernels need NVIDIA's compute capability 8.0 (sm_80) or more, or "
        "AMD's gfx942 or gfx950",
    ),
    (gpu_stack(torch_cuda=None), "the installed torch is built without CUDA"),
    (
        gpu_stack(maker="AMD", driver=DriverFacts(gpus=(MI300X,))),
        "the installed torch is built without ROCm",
    ),
    (
        gpu_stack(cuda_version=(11, 4)),
        "NVIDIA's driver is too old: it can do CUDA 11.4, and the installed torch needs CUDA 12.8",
    ),
    (gpu_stack(has_triton=False), "triton isn't installed (pip install 'tgi-cli[gpu]')"),
    (
        gpu_stack(has_compiler=False),
        "triton needs a C compiler, and there is no gcc, clang or $CC",
    ),
    (
        gpu_stack(has_python_headers=False),
        "triton needs Python's C headers, and Python.h isn't there (package python3-dev)",
    ),
]


def decide(stack: GpuStack, *, model: Any = None, **options: Any) -> ResolvedConfig:
    return resolve(ServeOptions(**options), model or gpu_model(), hardware(gpus=stack))


def reason_for(config: ResolvedConfig, name: str) -> str:
    return next(decision.reason for decision in config.decisions if decision.name == name)


@pytest.mark.parametrize(("stack", "obstacle"), MISSING)
def test_what_a_machine_lacks_is_named_and_the_cpu_computes(stack: GpuStack, obstacle: str) -> None:
    config = decide(stack)

    assert config.engine.device == "cpu"
    assert reason_for(config, "device") == obstacle
    told = (f"The GPU isn't used, the CPU computes instead: {obstacle}",)
    assert config.warnings == (told if stack.maker else ())


@pytest.mark.parametrize(("stack", "obstacle"), MISSING)
def test_a_gpu_that_was_asked_for_and_cannot_be_had_ends_the_start(
    stack: GpuStack, obstacle: str
) -> None:
    with pytest.raises(ArgumentError) as caught:
        decide(stack, device="cuda")

    assert caught.value.message == f"`device` is cuda, but {obstacle}"
    assert caught.value.exit_code == 1


MODELS = [
    ({"head_dim": 264}, {}, "the model's heads have 264 features"),
    ({"head_dim": 24}, {}, "the model's heads have 24 features"),
    ({}, {"dtype": "float32"}, "`dtype` is float32"),
    ({}, {"kv_cache_dtype": "float32"}, "`kv_cache_dtype` is float32"),
    ({}, {"kv_cache_dtype": "float16"}, "`kv_cache_dtype` is float16; the kernels take the model"),
    ({}, {"disable_custom_kernels": True}, "`disable_custom_kernels` is set"),
    ({"vocab_size": 1 << 31}, {}, "somebody/something needs "),  # GiB for its weights
]


@pytest.mark.parametrize(("model", "options", "text"), MODELS)
def test_what_the_kernels_cannot_do_of_a_model_is_named_before_it_is_loaded(
    model: dict[str, Any], options: dict[str, Any], text: str
) -> None:
    stack = gpu_stack(dataclasses.replace(H100, total_bytes=GIB))
    facts = gpu_model(**model)
    plenty = hardware(memory_bytes=1 << 45, gpus=stack)

    config = resolve(ServeOptions(**options), facts, plenty)

    assert config.engine.device == "cpu"
    assert config.warnings[0].startswith(f"The GPU isn't used, the CPU computes instead: {text}")
    with pytest.raises(ArgumentError, match=f"^`device` is cuda, but {text}"):
        resolve(ServeOptions(device="cuda", **options), facts, plenty)


@pytest.mark.parametrize(
    "stack",
    [
        gpu_stack(),
        gpu_stack(cuda_version=(12, 0)),  # an older minor version of the same major one will do
        gpu_stack(torch_cuda="12.8", cuda_version=(13, 1)),
        gpu_stack(
            maker="AMD", driver=DriverFacts(gpus=(MI300X,)), torch_cuda=None, torch_rocm="7.0"
        ),
    ],
)
def test_a_gpu_computes_where_nothing_is_missing(stack: GpuStack) -> None:
    config = decide(stack)

    assert config.engine.device == "cuda"
    assert config.router.model_device_type == "cuda"
    assert config.warnings == ()
    assert stack.gpu is not None
    assert reason_for(config, "device").startswith(stack.gpu.name)


def test_a_cpu_may_be_asked_for_beside_a_gpu() -> None:
    config = decide(gpu_stack(), device="cpu", dtype="float32")

    assert config.engine.device == "cpu"
    assert config.warnings == ()


def test_the_machines_obstacle_comes_before_the_models() -> None:
    device = choose_device(ServeOptions(), gpu_stack(has_triton=False), ["the model's own"])

    assert device.reason.startswith("triton")


@pytest.mark.parametrize("arch", ["sm_70", "sm_80", "sm_89", "sm_100", "sm_", "gfx90a", "gfx950"])
def test_an_architecture_is_supported_where_kernels_have_tiles_for_it(arch: str) -> None:
    stack = gpu_stack(GpuFacts("a GPU", arch, 80 * GIB))

    assert (machine_obstacle(stack) is None) == (devices.family(arch) is not None)


# What else is decided there


def test_a_float32_checkpoint_is_rounded_to_float16_and_told() -> None:
    config = decide(gpu_stack(), model=gpu_model(checkpoint_dtype="float32"))

    assert config.engine.dtype == "float16"
    assert "the checkpoint is float32" in reason_for(config, "dtype")


def test_prompts_are_computed_in_larger_chunks_than_on_a_cpu() -> None:
    model = gpu_model(max_position_embeddings=9_001)

    assert decide(gpu_stack(), model=model).engine.max_step_tokens == 4_096
    assert decide(GpuStack(), model=model).engine.max_step_tokens == 512


@pytest.mark.parametrize("dtype", ["fp8_e4m3fn", "fp8_e5m2"])
def test_a_narrow_kv_cache_needs_a_gpu(dtype: Any) -> None:
    narrow, usual = decide(gpu_stack(), kv_cache_dtype=dtype), decide(gpu_stack())

    assert narrow.engine.kv_cache_dtype == dtype
    assert usual.engine.kv_cache_dtype == "bfloat16"
    with pytest.raises(ArgumentError, match="which needs a GPU"):
        decide(gpu_stack(), model=model_facts(head_dim=20), kv_cache_dtype=dtype)


@pytest.mark.parametrize("asked", [None, "paged", "triton"])
def test_attention_is_our_own_unless_a_library_is_asked_for(asked: Any) -> None:
    config = decide(gpu_stack(), attention=asked)

    assert config.engine.attention == "paged"
    assert config.warnings == ()


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        ("flashdecoding", "flash-attn"),
        ("flash-attn", "flash-attn"),
        ("flashinfer", "flashinfer"),
    ],
)
def test_a_librarys_attention_is_used_if_it_is_installed(asked: Any, expected: str) -> None:
    stack = gpu_stack(has_flash_attn=True, has_flashinfer=True)

    config = decide(stack, attention=asked)

    assert config.engine.attention == expected
    assert "other bits in another batch" in config.warnings[0]
    with pytest.raises(ArgumentError, match=f"^`attention` is {asked}, but the package "):
        decide(gpu_stack(), attention=asked)


def test_flash_attns_blocks_are_larger() -> None:
    stack = gpu_stack(has_flash_attn=True)

    config = decide(stack, attention="flash-attn", max_batch_size=1)

    assert config.engine.block_size == 256
    assert config.engine.num_blocks == 8  # a sequence of 2047 tokens


def test_flashinfers_steps_are_not_captured() -> None:
    stack = gpu_stack(has_flashinfer=True)

    assert decide(stack, attention="flashinfer").engine.cuda_graphs == ()


def test_intels_attention_is_refused_on_other_gpus() -> None:
    with pytest.raises(ArgumentError, match="Intel"):
        decide(gpu_stack(), attention="flashdecoding-ipex")


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"max_batch_size": 30}, (1, 2, 4, 8, 16, 24, 30)),
        ({"max_batch_size": 3}, (1, 2, 3)),
        ({"max_batch_size": 32}, (1, 2, 4, 8, 16, 24, 32)),
        ({"max_batch_size": 30, "cuda_graphs": (16, 1, 64)}, (1, 16, 30)),
        ({"cuda_graphs": ()}, ()),
        ({"quantize": "bitsandbytes"}, ()),
        ({"quantize": "bitsandbytes-nf4", "cuda_graphs": (2,)}, (2,)),
    ],
)
def test_cuda_graphs_are_a_ladder_up_to_the_largest_batch(
    options: dict[str, Any], expected: tuple[int, ...]
) -> None:
    assert decide(gpu_stack(), **options).engine.cuda_graphs == expected


def test_the_ladder_ends_where_launches_are_hidden() -> None:
    assert max(decide(gpu_stack(), max_batch_size=9_999).engine.cuda_graphs) == 256


def test_a_cpu_has_no_cuda_graphs() -> None:
    assert decide(GpuStack(), cuda_graphs=(1, 2)).engine.cuda_graphs == ()
