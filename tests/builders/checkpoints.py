"""Tiny random checkpoints in Hugging Face's layout, written by transformers itself."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from transformers import (
    LlamaConfig,
    MistralConfig,
    PretrainedConfig,
    PreTrainedModel,
    Qwen2Config,
    Qwen3Config,
)
from transformers.models.llama import LlamaForCausalLM
from transformers.models.mistral import MistralForCausalLM
from transformers.models.qwen2 import Qwen2ForCausalLM
from transformers.models.qwen3 import Qwen3ForCausalLM

from tests.builders.tokenizers import END, TEMPLATE, byte_level_tokenizer

_CLASSES: dict[str, tuple[type[PretrainedConfig], type[PreTrainedModel]]] = {
    "llama": (LlamaConfig, LlamaForCausalLM),
    "mistral": (MistralConfig, MistralForCausalLM),
    "qwen2": (Qwen2Config, Qwen2ForCausalLM),
    "qwen3": (Qwen3Config, Qwen3ForCausalLM),
}
_SIZES: dict[str, Any] = {
    "vocab_size": 301,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "max_position_embeddings": 256,
    "rms_norm_eps": 1e-5,
    "bos_token_id": None,
    "eos_token_id": None,
    "pad_token_id": None,
}


def write_tiny_checkpoint(
    folder: Path,
    family: str = "llama",
    *,
    dtype: torch.dtype = torch.float32,
    max_shard_size: str = "1GB",
    **overrides: Any,
) -> PreTrainedModel:
    """Write a random model of `family` with a tokenizer; return transformers' own, in fp32."""
    config_class, model_class = _CLASSES[family]
    torch.manual_seed(7)
    config = config_class(**{**_SIZES, **overrides}, attn_implementation="eager")
    model = model_class(config).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            # The initialisation gives biases of 0 and norms of 1, which would hide their absence.
            if name.endswith("bias") or "norm" in name:
                parameter.copy_(torch.randn_like(parameter) * 0.3 + float("norm" in name))
            else:
                parameter.mul_(5)
    model.to(dtype).save_pretrained(folder, max_shard_size=max_shard_size)
    assets = byte_level_tokenizer()
    (folder / "tokenizer.json").write_text(assets.tokenizer_json)
    tokenizer_config = {"eos_token": END, "chat_template": TEMPLATE}
    (folder / "tokenizer_config.json").write_text(json.dumps(tokenizer_config))
    # Read back, because casting a model also rounds the rotary frequencies that it carries.
    return model_class.from_pretrained(
        folder, dtype=torch.float32, attn_implementation="eager"
    ).eval()
