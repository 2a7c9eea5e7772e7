"""Builders for option and resolve tests: a model's facts and a machine's."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import msgspec

from tgi_cli.runtime.config.facts import DriverFacts, GpuFacts, GpuStack, HardwareFacts
from tgi_cli.runtime.config.model_config import ModelConfig, TextAssets, WeightsSource
from tgi_cli.runtime.config.stored_tensors import num_parameters

GIB = 1 << 30

CONFIG = ModelConfig(
    family="llama",
    vocab_size=97,
    hidden_size=24,
    intermediate_size=40,
    num_layers=3,
    num_heads=4,
    num_kv_heads=2,
    head_dim=6,
    rms_norm_eps=1e-5,
    rope_theta=10_000.0,
    max_position_embeddings=2_047,
    checkpoint_dtype="bfloat16",
)
WEIGHTS = WeightsSource(
    kind="safetensors", files=("a.safetensors",), num_bytes=26_006, num_parameters=13_003
)
TOKEN_BYTES = 3 * 2 * (6 + 32) * 2  # of KV cache: layers, heads, key and padded value, bf16


@dataclass(frozen=True)
class ModelStub:
    model_id: str = "somebody/something"
    sha: str | None = "0123abc"
    pipeline_tag: str | None = "text-generation"
    config: ModelConfig = CONFIG
    weights: WeightsSource = WEIGHTS
    eos_token_ids: tuple[int, ...] = (2,)
    text: TextAssets = field(default_factory=lambda: TextAssets(tokenizer_json="{}"))


def model_facts(*, model_max_length: int | None = None, **config: Any) -> ModelStub:
    return ModelStub(
        config=msgspec.structs.replace(CONFIG, **config),
        text=TextAssets(tokenizer_json="{}", model_max_length=model_max_length),
    )


H100 = GpuFacts("NVIDIA H100 80GB HBM3", "sm_90", 80 * GIB)
MI300X = GpuFacts("AMD gfx942", "gfx942", 192 * GIB)


def hardware(
    *, num_cores: int = 3, memory_bytes: int = 4 * GIB, gpus: GpuStack | None = None
) -> HardwareFacts:
    return HardwareFacts(
        num_cores=num_cores, available_memory_bytes=memory_bytes, gpus=gpus or GpuStack()
    )


def gpu_stack(*gpus: GpuFacts, cuda_version: tuple[int, int] = (12, 8), **changes: Any) -> GpuStack:
    """Return a way to GPUs in which nothing is missing."""
    fields = {
        "maker": "NVIDIA",
        "driver": DriverFacts(gpus=gpus or (H100,), cuda_version=cuda_version),
        "torch_cuda": "12.8",
        "has_triton": True,
        "has_compiler": True,
        "has_python_headers": True,
    }
    return GpuStack(**{**fields, **changes})


def gpu_model(**config: Any) -> ModelStub:
    """Return a model that the kernels of a GPU can do."""
    return model_facts(**{"head_dim": 16, **config})


def memory_for_tokens(num_tokens: int, model: ModelStub) -> int:
    """Return the available memory in which `num_tokens` of KV cache fit, and hardly more."""
    cache_bytes = num_tokens * TOKEN_BYTES / 0.9
    return int((num_parameters(model.config) * 2 + cache_bytes) / 0.95) + 64
