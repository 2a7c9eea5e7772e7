"""Transformers' model with the very weights that the engine reads, to compare with."""

from __future__ import annotations

import torch
from transformers import LlamaConfig, LlamaForCausalLM

from tgi_cli.runtime.config.tensor_names import expected_tensors
from tgi_cli.runtime.hub.locate import LocatedModel
from tgi_cli.runtime.hub.weights_reader import WeightsReader
from tgi_cli.runtime.models.weights import Weights


def reference_model(located: LocatedModel) -> LlamaForCausalLM:
    """Transformers' Llama with the very weights that the engine reads."""
    model = located.config
    config = LlamaConfig(
        vocab_size=model.vocab_size,
        hidden_size=model.hidden_size,
        intermediate_size=model.intermediate_size,
        num_hidden_layers=model.num_layers,
        num_attention_heads=model.num_heads,
        num_key_value_heads=model.num_kv_heads,
        max_position_embeddings=model.max_position_embeddings,
        rms_norm_eps=model.rms_norm_eps,
        rope_parameters={"rope_type": "default", "rope_theta": model.rope_theta},
        tie_word_embeddings=True,
        eos_token_id=list(located.eos_token_ids),
        pad_token_id=0,
    )
    weights = Weights(WeightsReader(located.weights), model, model.checkpoint_dtype)
    with torch.device("meta"):
        reference = LlamaForCausalLM(config)
    state = {name: weights.get(name).float() for name in expected_tensors(model)}
    reference.load_state_dict(state, assign=True, strict=False)
    reference.model.rotary_emb = type(reference.model.rotary_emb)(config)
    reference.tie_weights()
    return reference.eval()
