"""The demo model as a folder that every peer reads: the same fp16 weights, in safetensors."""

from __future__ import annotations

import json
from pathlib import Path

from safetensors.torch import save_file

from tgi_cli.runtime.config.model_config import TextAssets
from tgi_cli.runtime.config.tensor_names import expected_tensors
from tgi_cli.runtime.hub.locate import locate_model
from tgi_cli.runtime.hub.weights_reader import WeightsReader
from tgi_cli.runtime.models.weights import Weights


def export_demo(folder: Path) -> None:
    """Write config, tokenizer and weights of the demo model into `folder`."""
    located = locate_model("demo")
    model, text = located.config, located.text
    weights = Weights(WeightsReader(located.weights), model, model.checkpoint_dtype)
    tensors = {name: weights.get(name).contiguous() for name in expected_tensors(model)}
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    config = {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "torch_dtype": model.checkpoint_dtype,
        "vocab_size": model.vocab_size,
        "hidden_size": model.hidden_size,
        "intermediate_size": model.intermediate_size,
        "num_hidden_layers": model.num_layers,
        "num_attention_heads": model.num_heads,
        "num_key_value_heads": model.num_kv_heads,
        "head_dim": model.head_dim,
        "rms_norm_eps": model.rms_norm_eps,
        "rope_theta": model.rope_theta,
        "max_position_embeddings": model.max_position_embeddings,
        "tie_word_embeddings": model.tie_word_embeddings,
        "eos_token_id": list(located.eos_token_ids),
    }
    (folder / "config.json").write_text(json.dumps(config))
    export_tokenizer(text, folder)


def export_tokenizer(text: TextAssets, folder: Path) -> None:
    """Write a model's tokenizer and chat template into `folder`."""
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": text.bos_token,
        "eos_token": text.eos_token,
        "pad_token": text.eos_token,
        "padding_side": "left",
        "chat_template": text.chat_templates.get("default"),
    }
    (folder / "tokenizer.json").write_text(text.tokenizer_json)
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
