"""Hugging Face's `config.json`, by an allow-list: known keys, checked types, bounded sizes.

`auto_map` and every other key that could name code to run is never looked at (DESIGN decision 6).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, get_args

from tgi_cli.errors import UnsupportedModelError
from tgi_cli.runtime.config.fields import Fields
from tgi_cli.runtime.config.model_config import Dtype, Family, ModelConfig, RopeScaling

ARCHITECTURES: dict[str, Family] = {
    "LlamaForCausalLM": "llama",
    "MistralForCausalLM": "mistral",
    "Qwen2ForCausalLM": "qwen2",
    "Qwen3ForCausalLM": "qwen3",
}

MAX_TOKENS = 1 << 24
MAX_VOCAB = 1 << 22
MAX_WIDTH = 1 << 18
MAX_LAYERS = 1024
MAX_HEADS = 4096
MAX_HEAD_DIM = 1024

# What transformers assumes when a key is absent.
_DEFAULT_POSITIONS: dict[Family, int] = {
    "llama": 2048,
    "mistral": 131072,
    "qwen2": 32768,
    "qwen3": 32768,
}
_DEFAULT_HEAD_DIM: dict[Family, int | None] = {
    "llama": None,
    "mistral": None,
    "qwen2": None,
    "qwen3": 128,
}


def parse_hf_config(raw: Mapping[str, Any], source: str = "config.json") -> ModelConfig:
    """Return the model that `raw` describes.

    Raises:
        UnsupportedModelError: another architecture or activation.
        CorruptModelError: a key that is missing, mistyped or out of bounds; the message names it.
    """
    fields = Fields(raw, source)
    family = _family(fields)
    activation = fields.text("hidden_act") or "silu"
    if activation not in ("silu", "swish"):
        raise UnsupportedModelError(f"{source}: hidden_act {activation!r}; this build has 'silu'.")

    hidden_size = fields.size("hidden_size", limit=MAX_WIDTH)
    num_heads = fields.size("num_attention_heads", limit=MAX_HEADS)
    num_layers = fields.size("num_hidden_layers", limit=MAX_LAYERS)
    head_dim = fields.size(
        "head_dim",
        limit=MAX_HEAD_DIM,
        default=_DEFAULT_HEAD_DIM[family] or max(1, hidden_size // num_heads),
    )
    num_kv_heads = fields.size("num_key_value_heads", limit=num_heads, default=num_heads)
    if num_heads % num_kv_heads:
        raise fields.wrong("num_key_value_heads", num_kv_heads, f"a divisor of {num_heads}")
    if head_dim % 2:
        raise fields.wrong("head_dim", head_dim, "even")
    sliding_window, num_full_attention_layers = _sliding_window(fields, family, num_layers)
    rope_theta, rope_scaling = _rope(fields)
    is_llama = family == "llama"
    return ModelConfig(
        family=family,
        vocab_size=fields.size("vocab_size", limit=MAX_VOCAB),
        hidden_size=hidden_size,
        intermediate_size=fields.size("intermediate_size", limit=MAX_WIDTH),
        num_layers=num_layers,
        num_heads=num_heads,
        num_kv_heads=num_kv_heads,
        head_dim=head_dim,
        rms_norm_eps=fields.number("rms_norm_eps", low=0.0, high=1.0, default=1e-6),
        rope_theta=rope_theta,
        rope_scaling=rope_scaling,
        max_position_embeddings=fields.size(
            "max_position_embeddings", limit=MAX_TOKENS, default=_DEFAULT_POSITIONS[family]
        ),
        tie_word_embeddings=fields.flag("tie_word_embeddings", default=False),
        attention_bias=family == "qwen2" or fields.flag("attention_bias", default=False),
        attention_output_bias=family != "qwen2" and fields.flag("attention_bias", default=False),
        mlp_bias=is_llama and fields.flag("mlp_bias", default=False),
        qk_norm=family == "qwen3",
        sliding_window=sliding_window,
        num_full_attention_layers=num_full_attention_layers,
        checkpoint_dtype=_dtype(fields),
    )


def _family(fields: Fields) -> Family:
    names = fields.get("architectures")
    known = ", ".join(ARCHITECTURES)
    if not isinstance(names, list) or len(names) != 1 or not isinstance(names[0], str):
        raise fields.wrong("architectures", names, "a list of one name")
    family = ARCHITECTURES.get(names[0])
    if family is None:
        raise UnsupportedModelError(
            f"Architecture {names[0]!r} isn't supported; this build runs {known}."
        )
    return family


def _dtype(fields: Fields) -> Dtype:
    dtype = fields.text("dtype") or fields.text("torch_dtype") or "float32"
    if dtype not in get_args(Dtype):
        raise UnsupportedModelError(
            f"config.json: weights in {dtype[:40]!r}; "
            f"this build reads {', '.join(get_args(Dtype))}."
        )
    return dtype  # type: ignore[return-value]


def _sliding_window(fields: Fields, family: Family, num_layers: int) -> tuple[int | None, int]:
    """Return the window, and how many of the first layers ignore it."""
    if family == "llama" or fields.get("sliding_window") is None:
        return None, 0
    window = fields.size("sliding_window", limit=MAX_TOKENS)
    if family == "mistral":
        return window, 0
    if not fields.flag("use_sliding_window", default=False):
        return None, 0
    layer_types = fields.get("layer_types")
    if layer_types is None:
        default = min(28, num_layers)  # transformers' own
        return window, min(
            fields.size("max_window_layers", limit=MAX_LAYERS, default=default), num_layers
        )
    full, windowed = "full_attention", "sliding_attention"
    count = layer_types.count(full) if isinstance(layer_types, list) else 0
    if layer_types != [full] * count + [windowed] * (num_layers - count):
        raise UnsupportedModelError(
            "config.json: layer_types mixes windowed and full layers in an order that this build "
            "doesn't run (full layers first)."
        )
    return window, count


def _rope(fields: Fields) -> tuple[float, RopeScaling | None]:
    """Read the old keys (`rope_theta`, `rope_scaling`) and transformers 5's `rope_parameters`."""
    section = fields.section("rope_parameters") or fields.section("rope_scaling")
    holder = section if section is not None and section.get("rope_theta") is not None else fields
    theta = holder.number("rope_theta", low=1.0, high=1e12, default=10000.0)
    if section is None:
        return theta, None
    kind = section.text("rope_type") or section.text("type") or "default"
    if kind == "default":
        return theta, None
    if kind not in ("linear", "dynamic", "llama3", "yarn"):
        raise UnsupportedModelError(
            f"config.json: rotary scaling {kind[:40]!r}; "
            "this build has linear, dynamic, llama3 and yarn."
        )
    trained = None
    if kind in ("llama3", "yarn"):
        trained = section.size(
            "original_max_position_embeddings",
            limit=MAX_TOKENS,
            default=fields.size("max_position_embeddings", limit=MAX_TOKENS, default=2048),
        )
    attention_factor = None
    if section.get("attention_factor") is not None:
        attention_factor = section.number("attention_factor", low=0.0, high=100.0)
    if section.get("mscale") is not None or section.get("mscale_all_dim") is not None:
        raise UnsupportedModelError("config.json: yarn with mscale isn't supported by this build.")
    return theta, RopeScaling(
        kind=kind,  # type: ignore[arg-type]
        factor=section.number("factor", low=1e-3, high=1e4),
        original_max_position_embeddings=trained,
        low_freq_factor=section.number("low_freq_factor", low=1e-3, high=1e3, default=1.0),
        high_freq_factor=section.number("high_freq_factor", low=1e-3, high=1e3, default=4.0),
        beta_fast=section.number("beta_fast", low=1e-3, high=1e4, default=32.0),
        beta_slow=section.number("beta_slow", low=1e-3, high=1e4, default=1.0),
        attention_factor=attention_factor,
    )
