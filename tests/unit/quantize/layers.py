"""Small random decoder layers, and what goes into them."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from tgi_cli.runtime.config.model_config import ModelConfig
from tgi_cli.runtime.config.tensor_names import expected_tensors


def tiny_config(**changes: Any) -> ModelConfig:
    fields: dict[str, Any] = {
        "family": "llama",
        "vocab_size": 97,
        "hidden_size": 48,
        "intermediate_size": 80,
        "num_layers": 1,
        "num_heads": 6,
        "num_kv_heads": 3,
        "head_dim": 8,
        "rms_norm_eps": 1e-5,
        "rope_theta": 10_000.0,
        "max_position_embeddings": 64,
        "checkpoint_dtype": "float16",
    }
    return ModelConfig(**fields | changes)


FAMILIES = {
    "llama": tiny_config(),
    "llama, a value for each query": tiny_config(num_kv_heads=6),
    "mistral, windowed": tiny_config(family="mistral", sliding_window=5),
    "qwen2, biases": tiny_config(family="qwen2", attention_bias=True),
    "qwen3, head norms": tiny_config(family="qwen3", qk_norm=True),
    "llama, all biases": tiny_config(
        attention_bias=True, attention_output_bias=True, mlp_bias=True
    ),
}


def random_layer(config: ModelConfig, seed: int = 0) -> dict[str, Tensor]:
    """A layer's tensors in fp32, as fp16 stores them; some input features matter much more."""
    generator = torch.Generator().manual_seed(seed)
    prefix = "model.layers.0."
    layer = {}
    for name, shape in expected_tensors(config).items():
        if name.startswith(prefix):
            tensor = torch.randn(shape, generator=generator)
            if "norm" in name:
                tensor = tensor.mul(1.2).exp()
            elif name.endswith(".weight"):
                tensor = tensor / shape[-1] ** 0.5
            layer[name.removeprefix(prefix)] = tensor.half().float()
    return layer


def random_inputs(config: ModelConfig, seed: int = 0, num: int = 5, length: int = 13) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(num, length, config.hidden_size, generator=generator)
