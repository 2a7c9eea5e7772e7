"""The metadata of a GGUF file as a model configuration, in the manners of `hf_config.py`.

Mistral models come as `llama`. Llama 3's rotary scaling comes as a tensor, `rope_freqs.weight`,
with one divisor per frequency.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

from tgi_cli.errors import CorruptModelError, UnsupportedModelError
from tgi_cli.runtime.config.fields import Fields
from tgi_cli.runtime.config.hf_config import (
    MAX_HEAD_DIM,
    MAX_HEADS,
    MAX_LAYERS,
    MAX_TOKENS,
    MAX_VOCAB,
    MAX_WIDTH,
)
from tgi_cli.runtime.config.model_config import Family, ModelConfig, RopeScaling

_FAMILIES: dict[str, Family] = {"llama": "llama", "qwen2": "qwen2", "qwen3": "qwen3"}


def parse_gguf_metadata(
    metadata: Mapping[str, Any],
    tensor_names: frozenset[str],
    source: str,
    rope_divisors: tuple[float, ...] = (),
) -> ModelConfig:
    """Return the model that a file's metadata and the names of its tensors describe.

    `rope_divisors` is the content of `rope_freqs.weight`, if the file has it.

    Raises:
        UnsupportedModelError: another architecture or rotary scaling.
        CorruptModelError: a key that is missing, mistyped or out of bounds.
    """
    fields = Fields(metadata, source)
    architecture = fields.text("general.architecture") or ""
    family = _FAMILIES.get(architecture)
    if family is None:
        raise UnsupportedModelError(
            f"{source}: architecture {architecture[:40]!r} isn't supported; "
            f"this build runs GGUF files of {', '.join(_FAMILIES)}."
        )

    def key(name: str) -> str:
        return f"{architecture}.{name}"

    hidden_size = fields.size(key("embedding_length"), limit=MAX_WIDTH)
    num_heads = fields.size(key("attention.head_count"), limit=MAX_HEADS)
    num_kv_heads = fields.size(key("attention.head_count_kv"), limit=num_heads, default=num_heads)
    if num_heads % num_kv_heads:
        raise fields.wrong(
            key("attention.head_count_kv"), num_kv_heads, f"a divisor of {num_heads}"
        )
    head_dim = fields.size(
        key("attention.key_length"), limit=MAX_HEAD_DIM, default=max(1, hidden_size // num_heads)
    )
    rotary_dim = fields.size(key("rope.dimension_count"), limit=MAX_HEAD_DIM, default=head_dim)
    if rotary_dim != head_dim:
        raise UnsupportedModelError(
            f"{source}: rotates {rotary_dim} of {head_dim} dimensions; this build rotates all."
        )
    tokens = fields.get("tokenizer.ggml.tokens")
    vocab_size = fields.size(
        key("vocab_size"),
        limit=MAX_VOCAB,
        default=len(tokens) if isinstance(tokens, list) else None,
    )
    return ModelConfig(
        family=family,
        vocab_size=vocab_size,
        hidden_size=hidden_size,
        intermediate_size=fields.size(key("feed_forward_length"), limit=MAX_WIDTH),
        num_layers=fields.size(key("block_count"), limit=MAX_LAYERS),
        num_heads=num_heads,
        num_kv_heads=num_kv_heads,
        head_dim=head_dim,
        rms_norm_eps=fields.number(key("attention.layer_norm_rms_epsilon"), low=0.0, high=1.0),
        rope_theta=fields.number(key("rope.freq_base"), low=1.0, high=1e12, default=10000.0),
        rope_scaling=(
            _divided_rope(rope_divisors, head_dim, source)
            if rope_divisors
            else _rope_scaling(fields, key, source)
        ),
        max_position_embeddings=fields.size(key("context_length"), limit=MAX_TOKENS),
        tie_word_embeddings="output.weight" not in tensor_names,
        attention_bias="blk.0.attn_q.bias" in tensor_names,
        attention_output_bias="blk.0.attn_output.bias" in tensor_names,
        mlp_bias="blk.0.ffn_up.bias" in tensor_names,
        qk_norm=family == "qwen3",
        checkpoint_dtype="float16",
    )


def _divided_rope(divisors: tuple[float, ...], head_dim: int, source: str) -> RopeScaling:
    are_sound = all(math.isfinite(divisor) and divisor > 0 for divisor in divisors)
    if len(divisors) != head_dim // 2 or not are_sound:
        raise CorruptModelError(
            f"{source}: tensor 'rope_freqs.weight' must hold {head_dim // 2} positive numbers."
        )
    return RopeScaling(kind="divisors", divisors=divisors)


def _rope_scaling(fields: Fields, key: Callable[[str], str], source: str) -> RopeScaling | None:
    kind = fields.text(key("rope.scaling.type")) or "none"
    if kind == "none":
        return None
    if kind not in ("linear", "yarn"):
        raise UnsupportedModelError(
            f"{source}: rotary scaling {kind[:40]!r}; this build reads linear and yarn from GGUF."
        )
    trained = None
    if kind == "yarn":
        trained = fields.size(key("rope.scaling.original_context_length"), limit=MAX_TOKENS)
    return RopeScaling(
        kind=kind,  # type: ignore[arg-type]
        factor=fields.number(key("rope.scaling.factor"), low=1e-3, high=1e4),
        original_max_position_embeddings=trained,
    )
