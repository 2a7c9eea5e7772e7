"""The tensors of the Llama family: their Hugging Face names, shapes, and names in GGUF files.

The one list that the check before serving, the loader and both file formats share.
"""

from __future__ import annotations

from tgi_cli.runtime.config.model_config import ModelConfig

EMBEDDING = "model.embed_tokens.weight"
HEAD = "lm_head.weight"
FINAL_NORM = "model.norm.weight"

FUSED = (("q_proj", "k_proj", "v_proj"), ("gate_proj", "up_proj"))  # one product each

_GGUF_NAMES = {
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "self_attn.q_norm": "attn_q_norm",
    "self_attn.k_norm": "attn_k_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}


def expected_tensors(config: ModelConfig) -> dict[str, tuple[int, ...]]:
    """Return the shape of every tensor that a model of this configuration has, by name."""
    tensors: dict[str, tuple[int, ...]] = {
        EMBEDDING: (config.vocab_size, config.hidden_size),
        FINAL_NORM: (config.hidden_size,),
    }
    if not config.tie_word_embeddings:
        tensors[HEAD] = (config.vocab_size, config.hidden_size)
    for index in range(config.num_layers):
        for part, shape in _layer_tensors(config).items():
            tensors[f"model.layers.{index}.{part}"] = shape
    return tensors


def projections(config: ModelConfig) -> dict[str, tuple[int, int]]:
    """Return output and input features of every matrix that is multiplied, by its module's name."""
    return {
        name.removesuffix(".weight"): (shape[0], shape[1])
        for name, shape in expected_tensors(config).items()
        if len(shape) == 2 and name != EMBEDDING
    }


def fused_with(module: str) -> tuple[str, ...]:
    """Return the projections that are one product with this one, itself among them."""
    prefix, _, own = module.rpartition(".")
    for parts in FUSED:
        if own in parts:
            return tuple(f"{prefix}.{part}" for part in parts)
    return (module,)


def _layer_tensors(config: ModelConfig) -> dict[str, tuple[int, ...]]:
    hidden, inner = config.hidden_size, config.intermediate_size
    q_size, kv_size = config.num_heads * config.head_dim, config.num_kv_heads * config.head_dim
    projections = {
        "self_attn.q_proj": (q_size, hidden, config.attention_bias),
        "self_attn.k_proj": (kv_size, hidden, config.attention_bias),
        "self_attn.v_proj": (kv_size, hidden, config.attention_bias),
        "self_attn.o_proj": (hidden, q_size, config.attention_output_bias),
        "mlp.gate_proj": (inner, hidden, config.mlp_bias),
        "mlp.up_proj": (inner, hidden, config.mlp_bias),
        "mlp.down_proj": (hidden, inner, config.mlp_bias),
    }
    tensors: dict[str, tuple[int, ...]] = {
        "input_layernorm.weight": (hidden,),
        "post_attention_layernorm.weight": (hidden,),
    }
    for part, (num_out, num_in, has_bias) in projections.items():
        tensors[f"{part}.weight"] = (num_out, num_in)
        if has_bias:
            tensors[f"{part}.bias"] = (num_out,)
    if config.qk_norm:
        tensors["self_attn.q_norm.weight"] = (config.head_dim,)
        tensors["self_attn.k_norm.weight"] = (config.head_dim,)
    return tensors


def gguf_name(name: str) -> str:
    """Return what GGUF files call the tensor that Hugging Face calls `name`."""
    if name == EMBEDDING:
        return "token_embd.weight"
    if name == HEAD:
        return "output.weight"
    if name == FINAL_NORM:
        return "output_norm.weight"
    _, _, index, *parts, kind = name.split(".")
    return f"blk.{index}.{_GGUF_NAMES['.'.join(parts)]}.{kind}"
